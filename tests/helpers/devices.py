"""Devices that are not there: CPU tensors that claim to be elsewhere, and refuse to be mixed, as those of two GPUs do.

Torch has one CPU, and no machine here has two accelerators. Under `pretended()` tensors can be made on and moved to
"privateuseone:1", "privateuseone:2", …: their numbers lie on the CPU and are computed there, by the same kernels, but
an operation on tensors of two devices is an error, as it is in CUDA (single numbers on the CPU may join).

It registers a backend with torch, which cannot be taken back: use it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from videolens.model.decoder import kernels

KIND = "privateuseone"
_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Elsewhere(Tensor):
    """A CPU tensor that says that it is on another device."""

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> Elsewhere:
        """Around the numbers."""
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
            requires_grad=False,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `computed`."""
        return computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Its numbers."""
        return self.inner.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r}, {self.device})"


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, with the numbers where they are; what comes out is on the device of what went in."""
    flat = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    places = {one.device for one in flat if one.ndim or isinstance(one, Elsewhere)}
    asked, moves = kwargs.get("device"), func in _MOVES
    if len(places) > 1 and not moves:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} found {sorted(map(str, places))}"
        )
    if asked is not None:
        place, kwargs = torch.device(asked), kwargs | {"device": torch.device("cpu")}
    elif moves:
        place = flat[0].device
    else:
        place = next((one.device for one in flat if isinstance(one, Elsewhere)), torch.device("cpu"))
    args_there, kwargs_there = tree_map(lambda x: x.inner if isinstance(x, Elsewhere) else x, (args, kwargs))
    found = func(*args_there, **kwargs_there)
    if func._schema.name.endswith("_"):
        return args[0]
    if place.type != KIND:
        return found
    return tree_map(lambda one: Elsewhere(one, place) if isinstance(one, Tensor) else one, found)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Data(TorchFunctionMode):
    """`torch.tensor(data, device=…)`, which copies behind the back of what is above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        place = torch.device(kwargs.get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor) and place.type == KIND:
            return func(*args, **kwargs | {"device": "cpu"}).to(place)
        return func(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[None]:
    """While it holds, "privateuseone:0", "privateuseone:1", … are devices."""
    _setup_privateuseone_for_python_backend()
    fused = kernels._fused
    # a tensor of a class of its own in place of a mask: not two such classes at a time
    kernels.causal_lower_right = lambda rows, keys: torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)

    def there(q: Tensor, k: Tensor, v: Tensor, scale: float, **how: Any) -> Tensor:
        return fused(q, k, v, scale, **{name: x.to(q.device) if name == "attn_mask" else x for name, x in how.items()})

    kernels._fused = there
    with _Data(), _Operations():
        yield
