"""The shape of the code base: imports point one way, files and functions stay small, `import videolens` does nothing.

Imports count wherever they stand: at the top of a file, inside functions, and for types only.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import videolens

PACKAGE = Path(videolens.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
MAX_LINES, MAX_FUNCTION = 300, 60

# floor by floor: a room may import from the rooms that stand before it in its list, and from itself
BELOW_MODEL = ("errors", "cache", "notebook", "reading", "video", "question", "prompt")
ALLOWED: dict[str, tuple[str, ...]] = {
    "_version": (),
    "errors": (),
    "cache": (),
    "notebook": (),  # finds the room "displays" by its name
    "progress": (),
    "reading": ("errors",),
    "video": ("errors", "cache", "notebook", "reading"),
    "question": ("errors", "notebook", "video"),
    "datasets": ("errors", "cache", "progress", "reading", "video", "question"),
    "prompt": ("errors", "cache", "notebook", "video", "question"),
    "model": BELOW_MODEL,
    "interventions": (*BELOW_MODEL, "model"),
    "engine": (*BELOW_MODEL, "model", "interventions"),
    "drawing": ("errors",),
    "experiments/common": (*BELOW_MODEL, "progress", "model", "interventions", "engine", "_version"),
    "runs": (*BELOW_MODEL, "progress", "datasets", "model", "engine", "experiments", "experiments/common", "drawing"),
    "evaluators": (*BELOW_MODEL, "progress", "model", "interventions", "runs"),
    "__main__": ("errors", "_version", "commands"),
}
EXPERIMENT = (*ALLOWED["experiments/common"], "experiments/common")
NEIGHBOURS = {
    "claims": ("experiments/flow",),
    "flow_comparison": ("experiments/flow",),
    "generation": ("experiments/flow",),
    "pathway": ("experiments/flow",),
    "probe": ("experiments/flow",),
    "search": ("experiments/attribution", "experiments/pathway"),
}
NAMES = sorted(path.parent.name for path in PACKAGE.glob("experiments/*/__init__.py") if path.parent.name != "common")
ALLOWED |= {f"experiments/{name}": (*EXPERIMENT, "drawing", *NEIGHBOURS.get(name, ())) for name in NAMES}
ALLOWED["experiments"] = ("errors", "experiments/common")
EVERY_EXPERIMENT = tuple(f"experiments/{name}" for name in NAMES)
ALLOWED["views"] = (*EXPERIMENT, "drawing", *EVERY_EXPERIMENT)
ALLOWED["explorer"] = (*EXPERIMENT, "drawing", *EVERY_EXPERIMENT)
ALLOWED["displays"] = (*EXPERIMENT, "drawing", "explorer")
ALLOWED["pages"] = (*EXPERIMENT, "drawing", *EVERY_EXPERIMENT, "datasets", "experiments", "explorer")
ALLOWED["commands"] = (*ALLOWED["pages"], "pages", "runs", "_version")
ALLOWED["__init__"] = (*ALLOWED["commands"], "commands")


def room(module: str) -> str:
    """The room that a module stands in: "model", "experiments/flow", …"""
    parts = module.split(".")[1:] or ["__init__"]
    if parts[0] == "experiments" and len(parts) > 1 and (PACKAGE / "experiments" / parts[1]).is_dir():
        return "/".join(parts[:2])
    return parts[0]


@cache
def imports(module: str) -> frozenset[tuple[str, int]]:
    """(module of the package, line) of every import in a file."""
    path = MODULES[module]
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "videolens"}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative imports hide where a name comes from"
            base = node.module or ""
            if base.split(".")[0] != "videolens":
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                # `from videolens import Video` reaches the module that the public name lives in
                public = videolens._PUBLIC.get(alias.name) if base == "videolens" else None
                found.add((public or (inner if inner in MODULES else base), node.lineno))
    return frozenset(found)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    own = room(module)
    assert own in ALLOWED, f"{module} is in a new room, {own}: say in ALLOWED what it may import"
    allowed = {own, *ALLOWED[own]}
    wrong = [f"line {line}: {name}" for name, line in sorted(imports(module)) if room(name) not in allowed]
    assert not wrong, f"{own} may import {sorted(allowed)}, but {module} imports {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_what_begins_with_an_underscore_stays_in_its_file(module: str) -> None:
    """What has no underscore is for other files: no list beside it says so again."""
    taken = [
        f"line {node.lineno}: {alias.name} of {node.module}"
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("videolens")
        for alias in node.names
        if re.match("_[^_]", alias.name) and f"{node.module}.{alias.name}" not in MODULES
    ]
    assert not taken, f"{module} takes what is private elsewhere: {taken}"


def test_the_rooms_have_an_order() -> None:
    order = list(TopologicalSorter({name: set(below) for name, below in ALLOWED.items()}).static_order())
    assert order.index("model") < order.index("engine") < order.index("pages") < order.index("__init__")


def test_no_module_imports_itself_by_a_circle() -> None:
    try:
        TopologicalSorter({module: {name for name, _ in imports(module)} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_computes_without_drawing(name: str) -> None:
    """result ← experiment, and result ← figure ← section: neither result nor experiment leads to what draws it."""
    base = f"videolens.experiments.{name}."
    for start in ("result", "experiment"):
        assert base + start in MODULES, f"experiments/{name} has no {start}.py"
        seen, todo = set(), [base + start]
        while todo:
            module = todo.pop()
            seen.add(module)
            todo += [found for found, _ in imports(module) if found not in seen]
        drawing = sorted(module for module in seen if room(module) == "drawing")
        assert not drawing, f"{base}{start} leads to {drawing}: what draws is figure.py, view.py and section.py"
        if start == "result":
            assert f"{base}experiment" not in seen, f"{base}result imports the experiment that makes it"


@pytest.mark.parametrize("module", MODULES)
def test_files_are_rooms(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines, more than {MAX_LINES}: it holds more than one subject"


def functions() -> Iterator[tuple[str, int]]:
    """(file:line name, lines without the docstring) of every function."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                said = node.body[0]
                text = isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
                docstring = said.end_lineno - said.lineno + 1 if text and said.end_lineno else 0
                lines = node.end_lineno - node.lineno + 1 - docstring
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", lines


def test_functions_are_short() -> None:
    long = [f"{where} ({lines} lines)" for where, lines in functions() if lines > MAX_FUNCTION]
    assert not long, f"longer than {MAX_FUNCTION} lines, docstrings not counted: {long}"


def test_what_is_imported_is_declared() -> None:
    """Every package that the code imports stands in pyproject.toml; what only some need, in an extra."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    names = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    declared = {re.split(r"[^\w-]", name)[0].lower().replace("-", "_") for name in names}
    declared |= {{"pillow": "PIL", "pyyaml": "yaml", "scikit_learn": "sklearn"}.get(name, name) for name in declared}
    imported: dict[str, Path] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported[node.module.split(".")[0]] = path
    missing = {
        name: str(path.relative_to(PACKAGE))
        for name, path in imported.items()
        if name not in declared | sys.stdlib_module_names | {"videolens"}
    }
    assert not missing, f"imported and not in pyproject.toml: {missing}"


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
