"""Experiments: a question asked as arms and seeds, each trained and measured by the ordinary commands."""
