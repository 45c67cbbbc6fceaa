"""Every block of Python in the documentation runs by itself: who copies one gets no NameError."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest

import videolens as vl

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{page.stem} {i}")
    for page in sorted((ROOT / "docs").glob("*.md"))  # README.md: test_readme.py
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_alone(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(block, "block", "exec")
    if block.startswith("# needs "):  # data, a checkpoint or a machine that is not here
        assert all(hasattr(vl, name) for name in re.findall(r"\bvl\.(\w+)", block))
        return
    everything = vl.load_dataset
    most = 16 if "vl.probe(" in block else 2  # nobody learns to tell four directions apart from two clips

    def few(*names: str, n: int, **how: Any) -> list[vl.Question]:
        return everything(*names, n=min(n, most), **how)[:most]

    monkeypatch.setattr(vl, "load_dataset", few)
    module = ModuleType("block")
    monkeypatch.setitem(sys.modules, "block", module)
    exec(code, vars(module))
    plt.close("all")


def test_there_are_blocks_and_few_cannot_run() -> None:
    blocks = [str(param.values[0]) for param in BLOCKS]
    assert len(blocks) > 12 and sum(block.startswith("# needs ") for block in blocks) <= 3
