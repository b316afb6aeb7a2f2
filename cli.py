"""The command line: ``python cli.py fit | validate | predict --config configs/NAME.yaml``."""

from lightning_arc.command_line import ArcCLI, one_line_errors
from lightning_arc.data import ArcDataModule
from lightning_arc.model.arc_model import ArcModel


def main() -> None:
    """Run what the command line says."""
    with one_line_errors():
        ArcCLI(ArcModel, ArcDataModule)


if __name__ == "__main__":
    main()
