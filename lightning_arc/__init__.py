"""Lightning ARC: one language model that writes ARC outputs and verifies them, and ranks what any solver proposes."""

__version__ = "0.1.0"
