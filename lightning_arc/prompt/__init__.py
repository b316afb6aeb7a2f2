"""Prompts: grid encoders, layouts, and token ids from pieces."""
