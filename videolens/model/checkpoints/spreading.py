"""Decoder layers on several devices: which layer goes where, as callers say it or as accelerate plans it.

Front end, final norm and unembedding stay together on one device. A layer that lies elsewhere takes the residual stream
there and gives it back (`Block.forward`), so that everything that runs layers is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.checkpoints.placing import device_named
from videolens.model.decoder.layers import is_quantised

DeviceMap = str | Mapping[Any, Any]
"""A device for every decoder layer, by its 0-based number (of a device, a number is a CUDA device), or "auto"."""

_CPU = "cpu"


def check_device_map(given: Any, device: str | torch.device) -> DeviceMap | None:
    """What can be said of a device map before any weight is read.

    Raises:
        ModelError: neither "auto" nor a device for every layer, a device that is not here, or `device` given as well.
    """
    if given is None:
        return None
    if str(device) != _CPU:
        raise ModelError(f"device={str(device)!r} and device_map={given!r:.60} both say where the model is: give one")
    if isinstance(given, str) and given == "auto":
        return given
    if not isinstance(given, Mapping) or not given:
        raise ModelError(
            f"device_map is {given!r:.60}: give 'auto', or a device for every decoder layer, {{0: 'cuda:0', 1: …}}; "
            "the rest of the model goes where layer 0 does. For one device there is device="
        )
    for layer in given:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ModelError(
                f"device_map names {layer!r:.60}: its keys are the numbers of decoder layers, counted from 0. The rest "
                "of the model goes where layer 0 does"
            )
    return {layer: _device(one) for layer, one in given.items()}


def spread(model: Any, given: DeviceMap) -> None:
    """Put every layer where a checked device map says, and the rest of the model where layer 0 is ("auto": on the first
    device).

    Raises:
        ModelError: layers that the map leaves out, or that the model does not have; quantised weights; too little
            memory for "auto", or no accelerate.
    """
    names = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and is_quantised(one)]
    if names:
        raise ModelError(
            f"device_map is for plain float weights, and {names[0]} is quantised, as are {len(names) - 1} more: layers "
            "of bitsandbytes are not moved one by one; give device="
        )
    if isinstance(given, str):
        home, places = plan_layers(model)
    else:
        places = {layer: _device(one) for layer, one in given.items()}
        home = places.get(0, torch.device(_CPU))
    n_layers = len(model.blocks)
    if missing := [layer for layer in range(n_layers) if layer not in places]:
        raise ModelError(
            f"device_map leaves out the layers {missing} of {n_layers}: name every layer, 0 … {n_layers - 1}"
        )
    if extra := sorted(set(places) - set(range(n_layers))):
        raise ModelError(f"device_map names the layers {extra}; the model's are 0 … {n_layers - 1}")
    for name, child in model.named_children():
        if name != "blocks":
            child.to(home)
    for layer, block in enumerate(model.blocks):
        block.to(places[layer])
    model.cfg.device = str(model.frontend.device)


def plan_layers(
    model: Any, max_memory: Mapping[int | str, int | str] | None = None
) -> tuple[torch.device, dict[int, torch.device]]:
    """A device for every layer, by accelerate's planner: evenly over all accelerators, the CPU for what they cannot
    hold.

    What else the model has goes on the first device.

    Args:
        model: on any device, also on "meta": its sizes count.
        max_memory: bytes, or "20GiB", per device, as accelerate names them: 0, 1, …, "cpu". None: what is free.

    Returns:
        The first device, and that of every layer.

    Raises:
        ModelError: accelerate is not installed, or the devices together are too small.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import (
            compute_module_sizes,
            convert_file_size_to_int,
            get_balanced_memory,
            get_max_memory,
        )
    except ImportError as error:
        raise ModelError(
            f"device_map='auto' needs accelerate, which cannot be imported ({error}): pip install "
            "'videolens[accelerate]', or name a device for every layer, {0: 'cuda:0', …}"
        ) from error
    sizes, rest = compute_module_sizes(model.blocks)[""], compute_module_sizes(model)[""]
    rest -= sizes
    given = get_max_memory() if max_memory is None else max_memory
    room = {place: _bytes(size, convert_file_size_to_int) for place, size in given.items()}
    first, kind = next(iter(room)), [type(model.blocks[0]).__name__]
    short = ModelError(
        f"the layers need {_gib(sizes)} and the rest {_gib(rest)} on the first device, more than there is "
        f"({', '.join(f'{place}: {_gib(size)}' for place, size in room.items())}): load a smaller dtype, or use more "
        "devices"
    )
    if rest > room[first]:
        raise short
    room[first] -= rest
    room = get_balanced_memory(model.blocks, max_memory=room, no_split_module_classes=kind)
    found = infer_auto_device_map(model.blocks, max_memory=dict(room), no_split_module_classes=kind)
    if "disk" in found.values():
        raise short
    return _device(first), {layer: _device(found.get(str(layer), found.get(""))) for layer in range(len(model.blocks))}


def _bytes(size: int | str, read: Callable[[str], int]) -> int:
    return read(size) if isinstance(size, str) else size


def _device(given: Any) -> torch.device:
    """The device; a number is that of a CUDA device, as accelerate numbers them."""
    return device_named(f"cuda:{given}" if isinstance(given, int) and not isinstance(given, bool) else given)


def _gib(size: float | int) -> str:
    return f"{size / 2**30:.1f} GiB"
