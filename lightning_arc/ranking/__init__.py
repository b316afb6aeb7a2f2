"""Ranking: evidence about candidates, rankers, and how well they do."""
