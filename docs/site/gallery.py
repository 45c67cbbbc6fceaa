"""The figures of docs/gallery.md, made by the lines that stand above each.

    python docs/site/gallery.py [NAME …]

runs every block of the page (or those that leave the figures NAME) in docs/pictures, where they leave their figures.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]


def main(names: list[str]) -> None:
    """Run the page's blocks: all, or those of some figures."""
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    with contextlib.chdir(DOCS / "pictures"):
        for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
            if not names or any(f'"{name}.png"' in block for name in names):
                exec(compile(block, "gallery.md", "exec"), {})


if __name__ == "__main__":
    main(sys.argv[1:])
