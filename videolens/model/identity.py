"""Which weights a module has: told cheaply before every run, and by their content where two modules are compared."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.model.vision.tower_memory import checksum

_SAMPLE = 4  # numbers that are read of every weight


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, as `module.parameters()` finds them but in a fraction of the time.

    Without buffers that no checkpoint stores: rotary frequencies that follow a prompt's length are no weights.
    """
    todo = [module]
    while todo:
        one = todo.pop()
        if type(one) is not HookPoint:  # most modules of a model, and they hold nothing
            yield from filter(_is_there, one._parameters.values())
            stored = (each for name, each in one._buffers.items() if name not in one._non_persistent_buffers_set)
            yield from filter(_is_there, stored)
            todo += filter(_is_there, one._modules.values())


def _is_there(one: object) -> TypeGuard[Any]:
    return one is not None


def digest(module: nn.Module) -> str:
    """Of the content of all weights and buffers, wherever they lie. Reads all of them once."""
    tensors = list(_tensors(module))
    layout = repr([(each.dtype, tuple(each.shape)) for each in tensors])
    return blake2b(layout.encode() + checksum(tensors), digest_size=8).hexdigest()


class Weights:
    """A module's weights as they are now, so that an edit shows before a run: other tensors, in-place changes.

    Args:
        module: whose weights.
        sample: read a few numbers of each, too. PyTorch does not count changes of `parameter.data`; these show where
            they reach most of a tensor.
    """

    def __init__(self, module: nn.Module, *, sample: bool = True) -> None:
        self._state = _state(module)
        self._views = [_few(each) for each in _tensors(module)] if sample else []
        self._read = self._sample()

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (nn.Module(),)  # a copy knows nothing of its module

    def are_those_of(self, module: nn.Module) -> bool:
        """Whether the module still has these weights, unchanged."""
        return _state(module) == self._state and all(map(torch.equal, self._sample(), self._read))

    def _sample(self) -> list[Tensor]:
        kinds: dict[Any, list[Tensor]] = {}
        for view in self._views:
            kinds.setdefault((view.dtype, view.device), []).append(view)
        return [torch.cat(views) for views in kinds.values()]


def _state(module: nn.Module) -> list[tuple[int, int, int]]:
    return [(id(each), -1 if each.is_inference() else each._version, each.data_ptr()) for each in _tensors(module)]


def _few(tensor: Tensor) -> Tensor:
    """A view of a few numbers, spread over the tensor; of none where its memory is not in one piece."""
    flat = tensor.detach().view(-1) if tensor.is_contiguous() else tensor.new_empty(0)
    return flat[:: max(1, len(flat) // _SAMPLE)]
