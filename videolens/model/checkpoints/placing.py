"""Where a model is put and what it computes in, as callers say it: "auto", "cuda:1", "bfloat16"."""

from __future__ import annotations

from typing import Any

import torch

from videolens.errors import ModelError

_SLOW = 1_000_000_000  # parameters from which a CPU takes minutes for what a GPU does in seconds


def device_named(given: str | torch.device) -> torch.device:
    """The device; "auto" is CUDA where there is one, else MPS, else the CPU.

    Raises:
        ModelError: no such device, or not on this machine.
    """
    if str(given) == "auto":
        kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        given = next((kind for kind, there in kinds.items() if there), "cpu")
    try:
        return torch.empty(0, device=given).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise ModelError(f"device {str(given)!r} cannot be used here ({error}): use 'cpu', or 'auto'") from error


def dtype_named(given: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype, by its name ("bfloat16", "torch.bfloat16") or itself; None stays None.

    Raises:
        ModelError: it names none that a model computes in.
    """
    if given is None:
        return None
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype {given!r} is none that a model computes in: give float32, bfloat16 or float16")
    return found


def where_it_runs(model: Any, asked: str | torch.device) -> str | None:
    """A line about where a model was put, if there is something to say: what "auto" has found, or that a large model
    is on the CPU."""
    device = torch.device(model.cfg.device)
    kind = str(model.cfg.dtype).removeprefix("torch.")
    if device.type != "cpu":
        card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
        return f"on {device}{card}, {kind}"
    n = sum(each.numel() for each in {id(one): one for one in model.parameters()}.values())
    if n < _SLOW:
        return None
    found = "no CUDA or MPS device was found here" if str(asked) == "auto" else "as --device says"
    return f"on the CPU, {kind}: {found}, and {n / 1e9:.1f} B parameters take long there"
