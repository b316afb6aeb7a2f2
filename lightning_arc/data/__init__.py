"""Training and prediction data: sources, sampling, leaks, packing and loading."""
