"""jaxtyping's check of an array's shape, for what most of the package's annotations hold: axes that have a name or a
size, one after another.

A check that passes says here what jaxtyping says, at a fifth of the time; whatever does not pass, and every other
annotation, is jaxtyping's own to judge.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import _array_types, _storage

_Meta: Any = _array_types._MetaAbstractArray
thoroughly = _Meta.__instancecheck__

_ARRAYS = (("torch", "Tensor"), ("numpy", "ndarray"))
Axis = str | int | None
_AXES: dict[Any, tuple[tuple[Axis, ...], set[Any]] | None] = {}
"""Annotation → names and sizes of its axes (None: any size), and the dtypes that it is known to allow."""


def install() -> None:
    """Check arrays quickly from here on."""
    _Meta.__instancecheck__ = fits


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value has the type, the dtype and the shape of an annotation; names of axes are bound if so."""
    try:
        known = _AXES[annotation]
    except KeyError:
        known = _AXES[annotation] = _plain_axes(annotation)
    if known is None or not isinstance(value, annotation.array_type) or _storage.get_treeflatten_memo():
        return bool(thoroughly(annotation, value))
    axes, dtypes = known
    shape = value.shape
    if value.dtype not in dtypes or len(shape) != len(axes):
        found = bool(thoroughly(annotation, value))
        if found:
            dtypes.add(value.dtype)
        return found
    stack = getattr(_storage._shape_storage, "memo_stack", None)
    sizes = stack[-1][0] if stack else {}
    new: dict[str, int] = {}
    for axis, size in zip(axes, shape, strict=True):
        if type(axis) is str:
            there = sizes.get(axis)
            if there is None:
                there = new.setdefault(axis, size)
        else:
            there = size if axis is None else axis
        if there != size:
            return bool(thoroughly(annotation, value))
    sizes.update(new)
    return True


def _plain_axes(annotation: Any) -> tuple[tuple[Axis, ...], set[Any]] | None:
    """None: jaxtyping must look."""
    if annotation._skip_instancecheck or annotation.index_variadic is not None:
        return None
    # by name: xdist's own process, which runs no test, reads this file and needs no torch
    array = annotation.array_type
    if (getattr(array, "__module__", ""), getattr(array, "__name__", "")) not in _ARRAYS:
        return None
    axes: list[Axis] = []
    for one in annotation.dims:
        named, fixed = isinstance(one, _array_types._NamedDim), isinstance(one, _array_types._FixedDim)
        if one is _array_types._anonymous_dim:
            axes.append(None)
        elif not (named or fixed) or one.broadcastable or (named and one.treepath):
            return None
        else:
            axes.append(one.name if named else one.size)
    return tuple(axes), set()
