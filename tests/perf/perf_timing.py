"""Timing things side by side in one process, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from videolens.experiments.common.timing import in_turn, seconds

__all__ = ["interleaved", "machine", "median", "seconds", "table"]


def interleaved(
    runs: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median wall time of each (or that of another clock), one after the other in turn; a first turn warms up."""
    return {name: median(each) for name, each in in_turn(runs, repeats, clock).items()}


def machine(device: str) -> str:
    """What this runs on, in words."""
    if device != "cpu":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers get three digits."""
    cells = [[_cell(value) for value in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join([f"\n**{title}**\n", *lines])


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:,.{digits}f}"
