"""Ranking and generating: which questions a model is asked, and what becomes of its answers."""
