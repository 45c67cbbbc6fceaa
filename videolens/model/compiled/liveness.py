"""Which rows of a prompt a pathway's last token lives on, layer by layer: what a compiled pathway computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from videolens.model.compiled.opening import Opening, read_by
from videolens.model.compiled.row_plan import LayerRows, RowPlan
from videolens.model.cost import Cost
from videolens.model.decoder.kernels import SMALL
from videolens.model.decoder.views import HeadView, views_of
from videolens.model.decoder.visibility import RowRun, Visible


def plan_rows(opening: Opening, cost: Cost, n_layers: int, last: int, device: torch.device) -> RowPlan:
    """What each layer computes, from the last one down.

    1. After the last layer one row is wanted: the last token's.
    2. Into a layer go the rows that are wanted after it, all that these read there, and all that tokens that are
       generated later read there.
    3. Those are the rows that are wanted after the layer below.

    Prompts of unequal length differ in what they want: a row is computed for all if one wants it, and sees nothing
    where it is not wanted.
    """
    wanted = torch.zeros(opening.batch, opening.n_pos, dtype=torch.bool)
    wanted[:, last] = True
    known: dict[tuple[object, ...], tuple[LayerRows, Tensor]] = {}
    found: list[LayerRows] = []
    for layer in reversed(range(n_layers)):
        before = wanted.numpy().tobytes()
        if (made := known.get((opening.kind(layer), before))) is None:
            made = _layer(opening, layer, wanted, device)
            known[opening.kind(layer), before] = made  # its kind is known only now: masks have been asked for
        rows, wanted = made
        found.append(rows)
    return RowPlan(tuple(reversed(found)), cost, opening)


def _layer(
    opening: Opening, layer: int, wanted: Bool[Tensor, "batch pos"], device: torch.device
) -> tuple[LayerRows, Bool[Tensor, "batch pos"]]:
    """Step 2: what a layer computes, and what it wants of the layer below."""
    rows = wanted.any(0).nonzero().flatten()
    mask = opening(layer, rows, opening.n_pos)
    if opening.batch > 1:
        mask = mask & wanted[:, None, rows, None]
    entering = wanted | read_by(mask)
    kept, open_later = None, False
    if opening.n_new:
        later = opening.later(layer)
        read = read_by(later)[:, : opening.n_pos]
        entering = entering | read
        kept = read.any(0).nonzero().flatten()
        new = torch.arange(opening.n_pos, opening.n_pos + opening.n_new)
        keys = torch.cat([kept, new])
        open_later = bool((later[..., keys] == (new[:, None] >= keys)).all())
    at = entering.any(0).nonzero().flatten()
    views = views_of(mask[..., at], rows, at)
    made = LayerRows(
        entering=at.to(device),
        asked=None if len(rows) == len(at) else torch.searchsorted(at, rows).to(device),
        views=under_one_mask(views, device),
        kept=None if kept is None else torch.searchsorted(at, kept).to(device),
        open_later=open_later,
        pairs=pairs_of(views, mask.shape[1], mask.shape[0]),
    )
    return made, entering


def under_one_mask(views: Sequence[HeadView], device: torch.device) -> tuple[HeadView, ...]:
    """Views on a device: under one mask where so few rows × keys in several runs would be several calls."""
    return tuple((part, None if heads is None else heads.to(device), _short(visible)) for part, heads, visible in views)


def _short(visible: Visible) -> Visible:
    n_rows, n_keys = visible.n_rows, visible.n_keys
    if len(visible.runs) == 1 or n_rows * n_keys > SMALL:
        return visible
    mask = visible.dense(torch.device("cpu"))
    return Visible((RowRun(0, n_rows, ((0, n_keys),), mask=mask),), n_rows, n_keys)


def pairs_of(views: Sequence[HeadView], n_heads: int, batch: int = 1) -> int:
    """(query, key) pairs that are visible, mean over prompts and heads."""
    each = ((n_heads if heads is None else len(heads)) * visible.pairs for _, heads, visible in views)
    return sum(each) // (batch * n_heads)
