"""Other episodes from an episode: symmetry views, task composition, and wrong predictions made from a task."""

from lightning_arc.augment.composition import Composition, compose, draw_composition, maybe_compose
from lightning_arc.augment.distractors import draw_distractors
from lightning_arc.augment.views import IDENTITY, View, common_views, draw_view, swap_query

__all__ = [
    "IDENTITY",
    "Composition",
    "View",
    "common_views",
    "compose",
    "draw_composition",
    "draw_distractors",
    "draw_view",
    "maybe_compose",
    "swap_query",
]
