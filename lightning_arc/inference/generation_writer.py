"""A callback that only saved configs still name."""

from lightning.pytorch import Callback


class GenerationWriter(Callback):
    """Does nothing: generation writes by itself. Configs that earlier versions saved list it."""
