"""Attention to token trees, and how it is proved equal to that of separate sequences."""
