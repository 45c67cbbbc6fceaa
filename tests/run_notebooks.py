"""Execute every notebook of a folder from top to bottom, as continuous integration does: `run_notebooks.py [DIR]`.

A notebook that raises ends the run with its error. Outputs are thrown away: what is committed is what its author saw.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def run(path: Path, *, timeout_s: int = 600) -> float:
    """Execute one notebook in its own folder; seconds taken."""
    began = time.perf_counter()
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
    return time.perf_counter() - began


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0] if arguments else "notebooks")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # kernels import the checkout this file is in, installed or not
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    paths = sorted(folder.glob("*.ipynb"))
    for path in paths:
        print(f"{path}: ran in {run(path):.0f} s", flush=True)
    print(f"{len(paths)} notebooks ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
