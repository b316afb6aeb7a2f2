"""Callbacks: what is written while a model is trained, and after a ranking."""
