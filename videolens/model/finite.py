"""Numbers that are not finite (NaN, infinity) are an error, which names the first layer where they appear.

Only the logits are looked at. When they are not finite, the same run is repeated, and this time every layer is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from videolens.errors import ModelError

P = ParamSpec("P")
R = TypeVar("R")

_searching: ContextVar[bool] = ContextVar("searching", default=False)


class _NotFiniteError(ModelError):
    """Found in the logits; where it began is not known yet."""


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: one pass, without a copy."""
    return values.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(values.detach()))


def check_logits(values: Tensor) -> None:
    """Raise a `ModelError` if logits, or what they are read from, are not finite."""
    if not is_finite(values):
        raise _NotFiniteError(
            f"{_count(values)} of {values.numel()} values at the end of the run are not finite (NaN or infinity), so "
            "they say nothing about an answer: the final norm or the unembedding make them; check their weights"
        )


def check_made(values: Tensor, what: str, *parts: nn.Module) -> None:
    """Raise a `ModelError` if what a part of the front end made is not finite.

    Args:
        values: what was made.
        what: what made it, in words.
        parts: the modules that did.
    """
    if not is_finite(values):
        raise ModelError(_said(f"{what} give", values, parts))


def check_stage(values: Tensor, layer: int, *parts: nn.Module) -> None:
    """While the layer is searched: raise a `ModelError` if this one's residual stream is not finite; −1: its input."""
    if _searching.get() and not is_finite(values):
        where = f"layer {layer} (from 0)" if layer >= 0 else "what enters layer 0"
        raise ModelError(
            _said(f"the logits are not finite, and neither is {where}, where it begins: there are", values, parts)
        )


def names_the_layer(run: Callable[P, R]) -> Callable[P, R]:
    """A run whose logits are not finite is repeated, to raise an error that names the first layer with such values."""

    @wraps(run)
    def searched(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        except _NotFiniteError:
            if _searching.get():
                raise
            token = _searching.set(True)
            try:
                run(*args, **kwargs)
            finally:
                _searching.reset(token)
            raise

    return searched


def _count(values: Tensor) -> int:
    return int((~values.isfinite()).sum())


def _said(start: str, values: Tensor, parts: tuple[nn.Module, ...]) -> str:
    broken = [name for part in parts for name, weight in part.named_parameters() if not is_finite(weight)]
    if broken:
        why = f"the weights {', '.join(broken[:3])} are not finite: the checkpoint is damaged, fetch it again"
    elif values.dtype == torch.float16:
        why = "its weights are finite: float16 ends at 65504, load the model with dtype=torch.float32 or bfloat16"
    else:
        why = "its weights are finite: look for what is changed there, such as a hook function or a patch"
    return f"{start} {_count(values)} of {values.numel()} values that are not finite (NaN or infinity); {why}"
