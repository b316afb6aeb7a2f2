"""A name in saved configs."""

from lightning.pytorch import Callback


class RankingWriter(Callback):
    """Does nothing: ranking writes by itself. Configs that earlier versions saved list it."""
