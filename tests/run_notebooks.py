"""Execute every notebook of a folder from top to bottom, as continuous integration does: `run_notebooks.py [DIR]`.

A notebook that raises ends the run with its error. Where a notebook was committed with its outputs, what it prints is
compared with what stands there, numbers within a tolerance. `--write NOTEBOOK …` runs some and keeps their outputs.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TOLERANCE = 0.02
"""Of printed numbers, and this share of them: other processors round elsewhere."""
LARGEST = 400_000
"""Bytes that a notebook may have with its outputs."""
_NUMBER = re.compile(r"[-−+]?\d+(?:\.\d+)?")


def executed(path: Path, *, timeout_s: int = 600) -> Any:
    """A notebook, run in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        # a kernel starts in a second, but in minutes where other work has the cores
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    )
    client.execute()
    return notebook


def printed(cell: Any) -> str:
    """What a cell has printed; not what warns, nor pictures."""
    outputs = [] if cell["cell_type"] != "code" else cell["outputs"]
    return "".join(each["text"] for each in outputs if each.get("name") == "stdout")


def differences(committed: Any, found: Any) -> list[str]:
    """Cells that print something else than they did when the notebook was committed; none if it has no outputs."""
    if not any(cell.get("outputs") for cell in committed["cells"]):
        return []
    wrong = []
    for i, (before, now) in enumerate(zip(committed["cells"], found["cells"], strict=True)):
        old, new = printed(before), printed(now)
        if not alike(old, new):
            wrong.append(f"cell {i} printed\n{new}\nand when it was committed\n{old}")
    return wrong


def alike(old: str, new: str) -> bool:
    """Whether two texts have the same words, and numbers within the tolerance."""
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    numbers = [[float(each.replace("−", "-")) for each in pair] for pair in pairs]
    return all(abs(a - b) <= TOLERANCE * max(1, abs(a)) for a, b in numbers)


def write(path: Path) -> None:
    """Run a notebook and keep its outputs, but for warnings and bars."""
    notebook = executed(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [each for each in cell["outputs"] if each.get("name") != "stderr"]
            cell["metadata"].pop("execution", None)
    text = nbformat.writes(notebook)
    assert len(text) <= LARGEST, f"{path} would have {len(text):,} bytes, and {LARGEST:,} are the most: draw smaller"
    path.write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # kernels import the checkout this file is in, installed or not
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    if arguments[:1] == ["--write"]:
        for name in arguments[1:]:
            write(Path(name))
        return 0
    paths = sorted(Path(arguments[0] if arguments else "notebooks").glob("*.ipynb"))
    failed = 0
    for path in paths:
        began = time.perf_counter()
        wrong = differences(nbformat.read(path, as_version=4), executed(path))
        print(f"{path}: ran in {time.perf_counter() - began:.0f} s", *wrong, sep="\n", flush=True)
        failed += bool(wrong)
    print(f"{len(paths)} notebooks ran" + (f", {failed} of them print something else than before" if failed else ""))
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
