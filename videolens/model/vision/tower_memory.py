"""The vision tower runs once per clip, however many prompts are made of it.

The features of a clip depend on its pixels and on the tower. Both are read anew for every prompt, and the tower is run
again unless neither has changed: reading its weights once costs little beside multiplying by them for every patch of
every frame. So the features equal what the tower would give now, bit for bit.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from videolens.cache import Recent

ROOM = 512 * 2**20
"""Bytes of features that are kept. At 64 frames of a 7B (576 patches × 1024, bfloat16) a clip takes 72 MiB."""

_WORDS = 512

_Hooks = dict[int, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class Tower:
    """A vision tower, and all that its features depend on besides the pixels.

    Attributes:
        parts: its modules.
        encode: pixels [clip frame channel height width] → features [clip frame_of_grid patch d_vision].
        function: what the family computes features with, inside `encode`.
        config: the checkpoint's settings.
        device, dtype: that pixels are brought to.
    """

    parts: nn.ModuleDict
    encode: Callable[[Tensor], Tensor]
    function: Callable[..., Tensor]
    config: Any
    device: torch.device
    dtype: torch.dtype


class TowerMemory:
    """The features of the clips that were looked at last.

    1. A clip is known by a hash of its pixels. The tower is known by its modules, their forward methods and PyTorch
       hooks, the config, the arithmetic that is switched on, and the content of every parameter and buffer (so that a
       write through `.data` is noticed, too). When the tower is another one, all that is kept is forgotten.
    2. A clip that is not known is run through the tower by itself, so that its features do not depend on what else is
       in the batch.
    3. A copy is handed out: whoever changes a prompt's features does not change the next prompt's.

    Nothing is kept of a tower in training mode, which may draw random numbers, or while a PyTorch hook on one of its
    modules changes what it sees; a hook that only looks is called when the tower really runs. Gradients do not reach
    into the tower, kept or not: its features are computed without them. For gradients of the features, use
    `frontend.hook_video_features`.

    Args:
        room: bytes of features kept; the newest clip's are kept even if they are more.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._features: Recent[Tensor] = Recent(room, attrgetter("nbytes"))
        self._tower: tuple[object, object, object] | None = None  # content, code, and a name that can be hashed
        self._turn = threading.RLock()  # the tower's PyTorch hooks are watched while it runs: one thread at a time

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._features.room,)  # a copy of a model begins with nothing

    @property
    def n_bytes(self) -> int:
        """What the kept features take."""
        return self._features.n_bytes

    @property
    def tower(self) -> object:
        """Stands for the tower that was looked at last: another object when it was seen to have changed."""
        return self._tower and self._tower[2]

    def __len__(self) -> int:
        """Clips whose features are kept."""
        return len(self._features)

    def clear(self) -> None:
        """Forget all clips."""
        self._features.clear()

    @torch.no_grad()
    def features(
        self, tower: Tower, pixels: Float[Tensor, "clip frame channel height width"]
    ) -> Float[Tensor, "clip frame_of_grid patch d_vision"]:
        """What `tower.encode` gives for each of the clips."""
        with self._turn:
            return self._features_of(tower, pixels)

    def _features_of(self, tower: Tower, pixels: Tensor) -> Tensor:
        modules = list(tower.parts.modules())
        if any(module.training for module in modules):
            return tower.encode(pixels)
        # 1. the tower
        content, code, known = _content(tower), _code(tower, modules), self._tower
        if known is None or known[:2] != (content, code):
            known = (content, code, object())
            self._features.clear()
        # 2. and 3. the clips, as a copy
        clips = [self._one(tower, modules, known[2], clip[None]) for clip in pixels]
        # transformers puts its own hooks, which only look, on a tower when it first runs: the tower is still the same
        self._tower = (content, _code(tower, modules), known[2])
        return torch.cat(clips) if len(clips) > 1 else clips[0].clone()

    def _one(self, tower: Tower, modules: list[nn.Module], name: object, clip: Tensor) -> Tensor:
        meddling: list[Any] = []
        run = partial(_encode, tower, modules, meddling, clip)
        found = self._features.get((name, clip.dtype, clip.shape, _hash(clip)), run)
        if meddling:
            self._features.clear()
        return found


def _encode(tower: Tower, modules: list[nn.Module], meddling: list[Any], clip: Tensor) -> Tensor:
    with _watched(modules, meddling):
        return tower.encode(clip)


def _content(tower: Tower) -> tuple[object, ...]:
    """What the tower computes with: weights, settings, arithmetic."""
    tensors = [*tower.parts.parameters(), *tower.parts.buffers()]
    device = tower.device.type
    return (
        tower.device,
        tower.dtype,
        _settings(tower.config),
        tuple((id(one), one.dtype, one.device, one.shape) for one in tensors),
        checksum(tensors),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        torch.get_float32_matmul_precision(),
    )


def _code(tower: Tower, modules: list[nn.Module]) -> tuple[object, ...]:
    """What the tower runs: modules, their methods and PyTorch hooks."""
    return (
        tower.function,
        tuple((id(module), getattr(module.forward, "__func__", module.forward)) for module in modules),
        tuple(hook for table in _hook_tables(modules) for hook in table.values()),
    )


def _settings(config: Any) -> str:
    """Every setting of a config and of the configs in it, the private ones included."""
    return repr({name: _setting(value) for name, value in vars(config).items()})


def _setting(value: Any) -> Any:
    return _settings(value) if hasattr(value, "__dict__") and not isinstance(value, (Enum, type)) else value


def _hash(pixels: Tensor) -> bytes:
    return blake2b(pixels.cpu().contiguous().view(torch.uint8).numpy().data).digest()


def checksum(tensors: Iterable[Tensor]) -> bytes:
    """Of weights where they lie: sums of their bits over the rows and the columns of a table, mod 2^64.

    A change, a permutation, a change of sign all show. What does not show are changes that cancel in every row and in
    every column of one tensor, which numbers that were trained or drawn at random do not do by themselves. (Pixels do:
    a clip of a moving shape and its reversal have the same sums. They are hashed.)
    """
    sums: dict[torch.device, list[Int64[Tensor, " n"]]] = defaultdict(list)
    for tensor in tensors:
        data = tensor.detach().contiguous().flatten().view(torch.uint8)
        missing = -len(data) % (8 * _WORDS)
        # bytes are read eight at a time: not past the end, and not from the middle of a word
        whole = F.pad(data, (0, missing)) if missing or data.storage_offset() % 8 else data
        words = whole.view(torch.int64).view(len(whole) // (8 * _WORDS), _WORDS)
        sums[tensor.device] += [words.sum(0), words.sum(1)]
    return b"".join(blake2b(torch.cat(each).cpu().numpy().data).digest() for each in sums.values())


def _hook_tables(modules: Iterable[nn.Module]) -> Iterator[_Hooks]:
    for module in modules:
        yield module._forward_pre_hooks
        yield module._forward_hooks


@contextmanager
def _watched(modules: Iterable[nn.Module], meddling: list[Any]) -> Iterator[None]:
    """Collect in `meddling` the PyTorch hooks that do more than look: that return something, or write into tensors."""
    tables = [(table, dict(table)) for table in _hook_tables(modules)]
    try:
        for table, hooks in tables:
            table.update({key: partial(_called, hook, meddling) for key, hook in hooks.items()})
        yield
    finally:
        for table, hooks in tables:  # a hook that has removed itself stays removed
            table.update({key: hook for key, hook in hooks.items() if key in table})


def _called(hook: Callable[..., Any], meddling: list[Any], /, *args: Any, **kwargs: Any) -> Any:
    before = _versions((args, kwargs))
    result = hook(*args, **kwargs)
    if result is not None or _versions((args, kwargs)) != before:
        meddling.append(hook)
    return result


def _versions(values: object) -> list[int]:
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
