"""Ranking and generating: which requests a model is asked, and what becomes of its answers."""
