"""Attention to token trees, and the proof that it equals that of separate sequences."""
