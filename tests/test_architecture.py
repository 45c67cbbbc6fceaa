"""The shape of the code base: imports point one way, files stay small, and `import videolens` does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import videolens

PACKAGE = Path(videolens.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 300

# room -> the rooms it may import from, besides itself. A room is a module or a folder directly below the package.
BASE = {
    "errors",
    "video",
    "question",
    "template",
    "spans",
    "parts",
    "templates",
    "chat",
    "tokens",
    "tokenmaps",
    "layout",
    "encoding",
    "prompt",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "bundled": {"errors"},
    "containers": {"errors"},
    "decoding": {"errors", "containers"},
    "sampling": {"errors"},
    "edits": {"errors"},
    "recent": set(),
    "video": {"errors", "decoding", "edits", "recent", "sampling"},
    "question": {"errors", "edits", "video"},
    "datasets": {"errors", "sampling", "video", "question", "bundled"},
    "spans": {"errors"},
    "parts": {"spans"},
    "template": {"errors", "question", "spans"},
    "templates": {"errors", "template"},
    "chat": {"errors", "template", "templates"},
    "tokens": {"errors", "parts", "spans"},
    "layout": {"errors", "spans"},
    "tokenmaps": {"errors", "tokens"},
    "encoding": {"errors", "layout", "question", "spans", "template", "tokens"},
    "prompt": {"errors", "video", "question", "tokens", "tokenmaps"},
}
ALLOWED["model"] = BASE | {"bundled", "recent"}
ALLOWED["interventions"] = ALLOWED["model"] | {"model"}
ALLOWED["engine"] = ALLOWED["interventions"] | {"interventions"}
ALLOWED["experiments"] = ALLOWED["engine"] | {"engine"}
ALLOWED["report"] = ALLOWED["experiments"] | {"experiments", "datasets"}
ALLOWED["runs"] = ALLOWED["experiments"] | {"experiments", "datasets"}
ALLOWED["commands"] = ALLOWED["report"] | {"report", "runs"}
ALLOWED["__main__"] = {"errors", "commands"}
ALLOWED["__init__"] = ALLOWED["commands"]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[tuple[str, int]]:
    """(room, line) of every import of the package in a file: at its top, inside functions, and for types only.

    One exception: a result knows how it is drawn, so its method `figure` may call on the room above, report.
    """
    tree = ast.parse(path.read_text())
    drawing = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "figure"]
    in_drawing = {id(inner) for function in drawing for inner in ast.walk(function)}
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = path.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level]
                base = ".".join([*parents, *([base] if base else [])])
            # `from videolens import Video` reaches the room that the public name lives in
            names = (
                [videolens._PUBLIC.get(a.name, f"videolens.{a.name}") for a in node.names]
                if base == "videolens"
                else [base]
            )
        for name in names:
            parts = name.split(".")
            may_draw = id(node) in in_drawing and parts[1:2] == ["report"]
            if parts[0] == "videolens" and len(parts) > 1 and parts[1] != "__version__" and not may_draw:
                found.add((parts[1], node.lineno))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(path)
    assert own in ALLOWED, f"{path.name} is a new room: say in ALLOWED what it may import"
    wrong = [f"line {line}: {name}" for name, line in imported_rooms(path) if name != own and name not in ALLOWED[own]]
    assert not wrong, f"{own} may import {sorted(ALLOWED[own])}, but {path} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_rooms(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines, more than {MAX_LINES}: it holds more than one subject"


def test_the_public_table_is_whole() -> None:
    assert set(videolens.__all__) == set(videolens._PUBLIC) | {"__version__"}
    for name in videolens.__all__:
        assert getattr(videolens, name) is not None
    with pytest.raises(AttributeError, match="HookedVideoTransformer"):
        getattr(videolens, "no_such_name")  # noqa: B009


IMPORT_PROBE = """
import json, os, signal, socket, sys, time, warnings, logging, random

def refuse(*arguments, **options):
    raise AssertionError("import videolens opened a socket")

socket.socket.connect = refuse
socket.create_connection = refuse
def state():
    return [sys.excepthook is sys.__excepthook__, list(warnings.filters), dict(os.environ), list(sys.meta_path),
            logging.getLogger().level, len(logging.getLogger().handlers), random.getstate(), os.getcwd(),
            signal.getsignal(signal.SIGINT), list(sys.path)]
before = state()
began = time.process_time()
import videolens
took = time.process_time() - began
print(json.dumps({"same": before == state(), "seconds": took, "modules": sorted(sys.modules)}))
"""


def test_importing_the_package_is_cheap_and_changes_nothing() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_PROBE], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    seen = json.loads(result.stdout)
    assert seen["same"], "import videolens changed global state"
    heavy = {
        "torch",
        "numpy",
        "transformer_lens",
        "transformers",
        "matplotlib",
        "pandas",
        "circuitsvis",
        "av",
        "datasets",
    }
    assert not heavy & set(seen["modules"]), f"import videolens imports {sorted(heavy & set(seen['modules']))}"
    # transformer_lens takes seconds of processor time; this is an order of magnitude below it, however busy the machine
    assert seen["seconds"] < 0.5, f"import videolens took {seen['seconds']:.2f} s"
