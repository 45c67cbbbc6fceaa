"""What hook functions on attention masks leave of causality, asked for some rows and without a forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.errors import VideolensError

MaskFunctions = Sequence[tuple[str, Callable[..., Any]]]
"""Pairs of a mask's hook point and the function that acts there, in order."""


class MaskPoint:
    """Stands for a hook point where a hook function on a mask is called without a forward.

    A function that never reads the layer from it does the same in all layers, and is called once for all of them.
    """

    def __init__(self, name: str, n_heads: int) -> None:
        self._name, self._n_heads = name, n_heads
        self.ctx: Mapping[str, Any] = {}
        self.read_layer = False

    def at(self, rows: Int64[Tensor, " some"], keys: Int64[Tensor, " key"]) -> MaskPoint:
        """The same point, holding a mask of these rows and keys."""
        self.ctx = {"rows": rows, "keys": keys, "n_heads": self._n_heads}
        return self

    @property
    def name(self) -> str:
        """Of the hook point."""
        self.read_layer = True
        return self._name

    def layer(self) -> int:
        """The layer it belongs to."""
        return int(self.name.split(".")[1])


def masked(
    points: Sequence[MaskPoint],
    functions: Sequence[Callable[..., Any]],
    rows: Int64[Tensor, " some"],
    keys: Int64[Tensor, " key"],
    n_heads: int,
    batch: int = 1,
) -> Bool[Tensor, "batch_or_1 head_or_1 some key"]:
    """The causal mask of some rows after hook functions, each at its point; the first dimensions may stay 1.

    Raises:
        VideolensError: a function gives something else than a boolean mask of these rows and keys.
    """
    mask = (rows[:, None] >= keys)[None, None]
    for point, function in zip(points, functions, strict=True):
        mask = mask.clone()  # many hook functions edit in place, and return nothing
        changed = function(mask, hook=point.at(rows, keys))
        mask = mask if changed is None else changed
    ends = (len(rows), len(keys))
    fits = mask.ndim == 4 and mask.shape[0] in (1, batch) and mask.shape[1] in (1, n_heads) and mask.shape[2:] == ends
    if mask.dtype != torch.bool or not fits:
        one = "1" if batch == 1 else f"{batch}|1"
        raise VideolensError(
            f"a hook function on {points[-1].name} returned {mask.dtype} {tuple(mask.shape)}; it must give a "
            f"boolean mask [{one} head|1 {len(rows)} {len(keys)}], True = may attend"
        )
    return mask
