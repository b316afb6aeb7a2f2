"""A callback that only saved configs still name."""

from lightning.pytorch import Callback


class RankingWriter(Callback):
    """Does nothing: ranking writes by itself. Configs that earlier versions saved list it."""
