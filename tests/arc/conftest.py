"""What the tests of the ground floor share: files of a test's own."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path):
    """Write text, bytes, or a value as JSON, to a file of the test's folder, and return its path."""

    def write(name: str, value) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write
