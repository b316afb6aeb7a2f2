"""The folder stands on the ground floor: numbers alone, whatever else is installed."""

import subprocess
import sys
from pathlib import Path


def test_ranking_loads_neither_torch_nor_transformers_nor_lightning(repo_root: Path) -> None:
    modules = [path.stem for path in (repo_root / "lightning_arc" / "ranking").glob("*.py") if path.stem != "__init__"]
    code = "".join(f"import lightning_arc.ranking.{name}\n" for name in modules)
    code += "import sys\nprint(*{'torch', 'transformers', 'lightning', 'torchmetrics'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, capture_output=True, text=True)
    assert printed.stdout.split() == []
