"""The command line: ``python -m lightning_arc.experiments --config configs/experiments/NAME.yaml``."""

from jsonargparse import auto_cli

from lightning_arc.command_line import one_line_errors
from lightning_arc.experiments.run import experiment

if __name__ == "__main__":
    with one_line_errors():
        auto_cli(experiment, as_positional=False, prog="python -m lightning_arc.experiments", exit_on_error=False)
