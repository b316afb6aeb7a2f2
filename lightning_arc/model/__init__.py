"""The model: loading, the tree forward, scoring, and the Lightning module."""
