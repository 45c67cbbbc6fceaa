"""What each part of a batch sees, in each head: a mask [batch head row key] taken apart into what runs without one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.model.decoder.visibility import RowRun, Visible

HeadView = tuple[slice, Tensor | None, Visible]
"""A part of the batch, some heads (int64 numbers; None: all of them), and what those see."""


def views_of(
    mask: Bool[Tensor, "batch_or_1 head_or_1 row key"], rows: Int64[Tensor, " row"], keys: Int64[Tensor, " key"]
) -> tuple[HeadView, ...]:
    """Views of a mask; a batch or a head of one stands for all. Heads that see the same are one view."""
    views: list[HeadView] = []
    for number, one in enumerate(mask):
        batch = slice(None) if len(mask) == 1 else slice(number, number + 1)
        heads = alike(one)
        for same in heads:
            visible = _visible(one[same[0]], rows, keys)
            views.append((batch, None if len(heads) == 1 else torch.tensor(same, device=mask.device), visible))
    return tuple(views)


def padded_views(
    padding: Sequence[int], rows: Int64[Tensor, " row"], keys: Int64[Tensor, " key"]
) -> tuple[HeadView, ...] | None:
    """What each prompt of a batch padded on the left sees: padding sees nothing and is not seen. None without padding.

    The rows are all positions, or a single one behind the padding.
    """
    if not any(padding):
        return None
    views: list[HeadView] = []
    for number, n in enumerate(padding):
        if len(rows) == 1:
            runs = [RowRun(0, 1, ((n, len(keys)),))]
        else:
            blind = [RowRun(0, n, ())] if n else []
            runs = [*blind, RowRun(n, len(rows), (), own=n)]
        views.append((slice(number, number + 1), None, Visible(tuple(runs), len(rows), len(keys))))
    return tuple(views)


def views_on(views: Sequence[HeadView], device: torch.device) -> tuple[HeadView, ...]:
    """The same views for a layer that lies on another device."""
    return tuple((part, None if heads is None else heads.to(device), visible) for part, heads, visible in views)


def _visible(mask: Bool[Tensor, "row key"], rows: Int64[Tensor, " row"], keys: Int64[Tensor, " key"]) -> Visible:
    at = {int(row): index for index, row in enumerate(rows.tolist())}

    def some(positions: Int64[Tensor, " some"]) -> Bool[Tensor, "some key"]:
        first = at[int(positions[0])]
        return mask[first : first + len(positions)]

    return Visible.of(some, rows, keys)


def alike(mask: Bool[Tensor, "head row key"]) -> list[list[int]]:
    """Heads in groups that see the same."""
    groups: list[list[int]] = []
    for head in range(len(mask)):
        same = next((group for group in groups if torch.equal(mask[group[0]], mask[head])), None)
        if same is None:
            groups.append([head])
        else:
            same.append(head)
    return groups


def dense_mask(
    views: Sequence[HeadView], batch: int, n_heads: int, device: torch.device
) -> Bool[Tensor, "batch_or_1 head_or_1 row key"]:
    """The views as one boolean mask."""
    if len(views) == 1 and views[0][0] == slice(None) and views[0][1] is None:
        return views[0][2].dense(device)[None, None]
    visible = views[0][2]
    n_heads = 1 if all(heads is None for _, heads, _ in views) else n_heads
    mask = torch.zeros(batch, n_heads, visible.n_rows, visible.n_keys, dtype=torch.bool, device=device)
    for part, heads, visible in views:
        if heads is None:
            mask[part] = visible.dense(device)
        else:
            mask[part, heads] = visible.dense(device)
    return mask
