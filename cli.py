"""The command line: ``python cli.py fit | validate | predict | export --config configs/NAME.yaml``."""

from lightning_arc.command_line import ArcCLI, one_line_errors


def main() -> None:
    """Run what the command line says."""
    with one_line_errors():
        ArcCLI()


if __name__ == "__main__":
    main()
