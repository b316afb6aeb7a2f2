"""The command line as ``python -m lightning_arc.cli``."""

from lightning_arc.cli import main

if __name__ == "__main__":
    main()
