"""How much memory a sweep may use."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from videolens.errors import VideolensError
from videolens.model.running import Running

_UNKNOWN_MEMORY = 8 * 2**30  # where the system does not say how much there is


def memory_budget(max_memory: int | None, device: torch.device, *, kept: int = 0) -> int:
    """Bytes that may be used: those given (a `VideolensError` if that is no number of bytes), or half of what is free
    without the bytes that are `kept` already.
    """
    if max_memory is not None:
        if isinstance(max_memory, bool) or not isinstance(max_memory, int) or max_memory < 1:
            raise VideolensError(f"max_memory is a number of bytes above 0, got {max_memory!r}")
        return max_memory
    return (_free(device) + kept) // 2


def budget_of(model: Running, max_memory: int | None, *, kept: int = 0, device: torch.device | None = None) -> int:
    """The budget on the device of a model that has the least free: a sweep needs memory wherever layers lie. `device`:
    where it will run instead."""
    places = model.devices if device is None else (device,)
    return min(memory_budget(max_memory, place, kept=kept) for place in places)


def _free(device: torch.device) -> int:
    """Bytes that new tensors can have. What PyTorch keeps for reuse is free, and so is what the system fills with files
    while nobody needs it."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY
