"""A pass: the interventions that begin at the same row, their tree, and what each branch sees in each layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.engine.stages import Staged
from videolens.engine.tree import Branch, Level, grow
from videolens.interventions.protocol import HookFunction
from videolens.model.decoder.masks import MaskPoint, masked
from videolens.model.decoder.views import alike
from videolens.model.decoder.visibility import Visible

_ROWS_AT_A_TIME = 512

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
    by_row: dict[int, list[Staged]] = defaultdict(list)
    for each in staged:
        if each.functions and each.first_row is not None:
            by_row[each.first_row].append(each)
    return [Pass(row, grow(by_row[row], n_layers)) for row in sorted(by_row)]


class Sights:
    """What branches see, worked out once for each kind of mask and first row.

    Args:
        n_pos: positions of the prompt.
        asked: the row whose logits are wanted: the only one with a query in the last layer.
        n_layers, n_heads: of the model.
        device: of the rows and keys that hook functions get, as in a forward.
    """

    def __init__(self, *, n_pos: int, asked: int, n_layers: int, n_heads: int, device: torch.device) -> None:
        self.asked, self.n_layers, self.n_heads = asked, n_layers, n_heads
        self.keys = torch.arange(n_pos, device=device)
        self._known: dict[tuple[int, bool, tuple], Sight] = {}
        self._by_layer: set[tuple] = set()  # functions that have read the layer

    @cached_property
    def clean(self) -> Visible:
        """What all rows of the prompt see when nothing is blocked."""
        return Visible.causal(self.keys, self.keys)

    def __call__(self, first_row: int, branch: Branch, layer: int) -> Sight:
        """What the rows from `first_row` on see on a branch, or in the last layer the row that is asked for."""
        last = layer == self.n_layers - 1
        functions = tuple(function for _, function in branch.masks)
        key = (first_row, last, branch.masks if functions in self._by_layer else functions)
        if key not in self._known:
            rows = self.keys[self.asked : self.asked + 1] if last else self.keys[first_row:]
            points = [MaskPoint(name, self.n_heads) for name, _ in branch.masks]
            found = self._seen(rows, points, functions)
            if any(point.read_layer for point in points):
                self._by_layer.add(functions)
                key = (first_row, last, branch.masks)
            self._known[key] = found
        return self._known[key]

    def _seen(
        self, rows: Int64[Tensor, " row"], points: Sequence[MaskPoint], functions: Sequence[HookFunction]
    ) -> Sight:
        """What the functions leave of causality, a few rows at a time.

        1. As long as masks come back with one head, they are read as what all heads see.
        2. Where some rows' masks have more, heads that see the same in all rows are put together, and each group's
           mask is read.
        """
        if not functions:
            return ((None, Visible.causal(rows, self.keys)),)
        # 1.
        heads_seen: list[int] = []
        visible = Visible.of(partial(self._of_any_head, points, functions, heads_seen), rows, self.keys)
        n_heads = max(heads_seen, default=1)
        if n_heads == 1:
            return ((None, visible),)
        # 2.
        kinds: list[tuple[int, ...]] = [()] * n_heads
        for some in rows.split(_ROWS_AT_A_TIME):
            for kind, same in enumerate(alike(self._mask(some, points, functions).expand(n_heads, -1, -1))):
                for head in same:
                    kinds[head] += (kind,)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for head, of_head in enumerate(kinds):
            groups[of_head].append(head)

        sights = []
        for heads in groups.values():
            of_one = partial(self._of_head, points, functions, n_heads, heads[0])
            sights.append((torch.tensor(heads, device=rows.device), Visible.of(of_one, rows, self.keys)))
        return tuple(sights)

    # Methods, not functions inside `_seen`: where shapes are checked, each of those would be compiled at every call.
    def _of_any_head(
        self,
        points: Sequence[MaskPoint],
        functions: Sequence[HookFunction],
        heads_seen: list[int],
        some: Int64[Tensor, " some"],
    ) -> Bool[Tensor, "some key"]:
        mask = self._mask(some, points, functions)
        heads_seen.append(len(mask))
        return mask[0]

    def _of_head(
        self,
        points: Sequence[MaskPoint],
        functions: Sequence[HookFunction],
        n_heads: int,
        head: int,
        some: Int64[Tensor, " some"],
    ) -> Bool[Tensor, "some key"]:
        return self._mask(some, points, functions).expand(n_heads, -1, -1)[head]

    def _mask(
        self, some: Int64[Tensor, " some"], points: Sequence[MaskPoint], functions: Sequence[HookFunction]
    ) -> Bool[Tensor, "head_or_1 some key"]:
        return masked(points, functions, some, self.keys, self.n_heads)[0]
