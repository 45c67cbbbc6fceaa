"""Timing things side by side in one process, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

Name = TypeVar("Name")


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Wall time of one call, or that of another clock, and what it returned."""
    _wait()
    began = clock()
    result = run()
    _wait()
    return clock() - began, result


def in_turn(
    runs: Mapping[Name, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, list[float]]:
    """Wall times of each (or those of another clock), one after the other in every round; one round more comes first,
    to warm up, and does not count."""
    times: dict[Name, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            took, _ = seconds(run, clock)
            if turn:
                times[name].append(took)
    return times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
