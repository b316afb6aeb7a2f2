"""The command line: ``python cli.py fit | validate | predict | export --config configs/NAME.yaml``."""

from lightning_arc.cli import main

if __name__ == "__main__":
    main()
