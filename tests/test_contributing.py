"""docs/contributing.md says what is there: its tree, its picture of the layers, and the files it points to."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import pytest
from test_architecture import ALLOWED, NAMES, PACKAGE

TEXT = (PACKAGE.parent / "docs" / "contributing.md").read_text()


def test_the_tree_is_the_one_that_is_there() -> None:
    [tree] = re.findall(r"```\nvideolens/\n(.*?)```", TEXT, flags=re.DOTALL)
    shown, above = set(), ""
    for indent, name in re.findall(r"^( +)(\w+(?:\.py|/))", tree, flags=re.MULTILINE):
        above = name if len(indent) == 2 else above
        shown.add(name if len(indent) == 2 else above + name)
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and "__" not in path.name]
    there = {
        f"{path.relative_to(PACKAGE)}/" for path in folders if "assets" not in path.relative_to(PACKAGE).parts[:-1]
    }
    there |= {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "_version.py"}
    no_code = {"drawing/templates/"} & there  # of pages
    assert shown == there - no_code


def reached(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each room stands on, directly or not."""
    found: dict[str, set[str]] = {}
    for name in TopologicalSorter(edges).static_order():
        below = edges.get(name, set())
        found[name] = below.union(*(found[each] for each in below))
    return found


def test_the_picture_of_the_layers_is_what_is_allowed() -> None:
    [picture] = re.findall(r"```mermaid\nflowchart BT\n(.*?)```", TEXT, flags=re.DOTALL)
    called = dict(re.findall(r'(\w+)\["(.*?)"\]', picture))
    drawn: dict[str, set[str]] = {}
    for line in picture.strip().splitlines():
        upper, lower = (re.sub(r"\[.*\]", "", end).strip() for end in line.split("-->"))
        drawn.setdefault(called.get(upper, upper), set()).add(called.get(lower, lower))
    left_out = {"_version", "__init__", "__main__"}
    named = {f"experiments/{name}": "experiments/X" for name in NAMES}
    allowed: dict[str, set[str]] = {}
    for upper, rooms in ALLOWED.items():
        if upper not in left_out:
            some = allowed.setdefault(named.get(upper, upper), set())
            some |= {named.get(room, room) for room in rooms} - left_out - {named.get(upper, upper)}
    assert reached(drawn) == reached(allowed)


@pytest.mark.parametrize("name", ["docs/contributing.md", "CONTRIBUTING.md"])
def test_what_it_points_to_is_there(name: str) -> None:
    page = PACKAGE.parent / name
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    files = re.findall(r"`((?:tests|docs|videolens)/[\w/.]+)`", text)
    made = {"tests/test_entropy.py", "videolens/model/families/NAME.py", "videolens/datasets/NAME.py"}
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [file for file in files if file not in made and not (PACKAGE.parent / file).exists()]
    assert (links or files) and not missing
