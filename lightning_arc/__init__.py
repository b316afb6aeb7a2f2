"""Lightning ARC: one language model that writes ARC outputs and verifies them, and ranks what any solver proposes."""

import os

from lightning_arc.environment import configure_threads, keep_freed_memory

__version__ = "0.1.0"

configure_threads(os.environ)
keep_freed_memory(os.environ)
