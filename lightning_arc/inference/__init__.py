"""Ranking and generating: asking a model's requests, and writing the results."""
