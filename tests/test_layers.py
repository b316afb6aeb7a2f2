"""Arrows between the rooms of the package point down only."""

import ast
import subprocess
import sys
from pathlib import Path

LAYERS = (
    ("errors", "environment"),
    ("folders",),
    ("arc",),
    ("augment",),
    ("prompt",),
    ("ranking",),
    ("data",),
    ("model",),
    ("reporting",),
    ("callbacks",),
    ("inference",),
    ("experiments",),
    ("cli",),
)
"""The rooms of ``lightning_arc`` from the ground up; a room imports those below it."""


def _imports(root: Path) -> set[tuple[str, str, str]]:
    """Return the room, the file and the room that it imports, of every import between rooms."""
    found = set()
    for path in root.rglob("*.py"):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: relative import"
                names = [node.module]
            for name in names:
                parts = name.split(".")
                if parts[0] == "lightning_arc" and len(parts) > 1 and parts[1] != room:
                    found.add((room, str(path.relative_to(root)), parts[1]))
    return found


def test_every_room_has_its_layer(repo_root: Path) -> None:
    root = repo_root / "lightning_arc"
    rooms = {path.parts[len(root.parts)].removesuffix(".py") for path in root.rglob("*.py")} - {"__init__"}
    assert rooms == {room for layer in LAYERS for room in layer}


def test_a_room_imports_only_what_is_below_it(repo_root: Path) -> None:
    height = {room: number for number, layer in enumerate(LAYERS) for room in layer} | {"__init__": len(LAYERS)}
    wrong = {(file, used) for room, file, used in _imports(repo_root / "lightning_arc") if height[used] >= height[room]}
    assert wrong == set()


def test_grids_tasks_and_rankings_need_no_torch(repo_root: Path) -> None:
    root = repo_root / "lightning_arc"
    files = [path.relative_to(repo_root) for room in ("arc", "ranking") for path in (root / room).rglob("*.py")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = "".join(f"import {name}\n" for name in names)
    code += "import sys\nprint(*{'torch', 'transformers', 'lightning', 'torchmetrics'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, capture_output=True, text=True)
    assert printed.stdout.split() == []
