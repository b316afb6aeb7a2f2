"""Running an experiment: ``cli.py experiment --config configs/experiments/NAME.yaml``."""

from lightning_arc.experiments.run import experiment

__all__ = ["experiment"]
