"""A pass: the interventions that begin at the same row, their tree, and what each branch sees in each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.engine.stages import Functions, Staged
from videolens.engine.tree import Branch, Level, grow
from videolens.errors import VideolensError
from videolens.model.views import views_of
from videolens.model.visibility import Visible

__all__ = ["Pass", "Sight", "Sights", "make_passes"]

Sight = tuple[tuple[Tensor | None, Visible], ...]
"""What a branch sees: (heads, visible); heads None: all of them."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Interventions that can change nothing before `first_row`, computed together.

    Attributes:
        first_row: the rows of the pass are this one and all after it.
        levels: branches of the stages −1, 0 … n_layers.
    """

    first_row: int
    levels: tuple[Level, ...]

    def level(self, stage: int) -> Level:
        """Branches of a stage; −1 is the front end."""
        return self.levels[stage + 1]


def make_passes(staged: Sequence[Staged], n_layers: int) -> list[Pass]:
    """One pass for each first row."""
    by_row: dict[int, list[Staged]] = {}
    for each in staged:
        if each.functions and each.first_row is not None:
            by_row.setdefault(each.first_row, []).append(each)
    return [Pass(row, grow(by_row[row], n_layers)) for row in sorted(by_row)]


class Sights:
    """What branches see, worked out once for each kind of mask and first row.

    Args:
        n_pos: positions of the prompt.
        asked: the row whose logits are wanted: the only one with a query in the last layer.
        n_layers, n_heads: of the model.
    """

    def __init__(self, *, n_pos: int, asked: int, n_layers: int, n_heads: int) -> None:
        self.asked, self.n_layers, self.n_heads = asked, n_layers, n_heads
        self.keys = torch.arange(n_pos)
        self._known: dict[tuple[int, bool, tuple], Sight] = {}

    @cached_property
    def clean(self) -> Visible:
        """What all rows of the prompt see when nothing is blocked."""
        return Visible.causal(self.keys, self.keys)

    def __call__(self, first_row: int, branch: Branch, layer: int) -> Sight:
        """What the rows from `first_row` on see on a branch, or in the last layer the row that is asked for."""
        last = layer == self.n_layers - 1
        key = (first_row, last, tuple(function for _, function in branch.masks))
        if key not in self._known:
            rows = self.keys[self.asked : self.asked + 1] if last else self.keys[first_row:]
            self._known[key] = self._seen(rows, branch.masks)
        return self._known[key]

    def _seen(self, rows: Int64[Tensor, " row"], masks: Functions) -> Sight:
        if not masks:
            return ((None, Visible.causal(rows, self.keys)),)

        def mask_of(some: Int64[Tensor, " some"]) -> Bool[Tensor, "1 head_or_1 some key"]:
            mask = (some[:, None] >= self.keys)[None, None]
            for name, function in masks:
                # what a hook function on a mask is told by a hook point
                hook = SimpleNamespace(name=name, ctx={"rows": some, "keys": self.keys, "n_heads": self.n_heads})
                changed = function(mask.clone(), hook)
                mask = mask if changed is None else changed
            if mask.dtype != torch.bool or mask.shape[-2:] != (len(some), len(self.keys)) or len(mask) != 1:
                raise VideolensError(
                    f"a hook function on {masks[-1][0]} returned {mask.dtype} {tuple(mask.shape)}; it must give a "
                    f"boolean mask [1 head|1 {len(some)} {len(self.keys)}], True = may attend"
                )
            return mask

        if mask_of(rows[:1]).shape[1] == 1 and mask_of(rows[-1:]).shape[1] == 1:
            return ((None, Visible.of(lambda some: mask_of(some)[0, 0], rows, self.keys)),)
        return tuple((heads, visible) for _, heads, visible in views_of(mask_of(rows), rows, self.keys))
