"""The templates of docs/templates, copied and filled in as docs/contributing.md says."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates"


def filled_in(template: str, to: Path) -> Path:
    """Copy a template, a file or a folder, and replace its names: "Toy" by "Echo", "toy" by "echo"."""
    source = TEMPLATES / template
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, to)
    for file in sorted(to.rglob("*.py")) if to.is_dir() else [to]:
        file.write_text(file.read_text().replace("Toy", "Echo").replace("toy", "echo"))
    return to


def imported(file: Path) -> Any:
    """A file, imported as a module of its own. What it registers is registered."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module
