"""Fused attention over runs: no scores, no float mask of rows × keys, nothing repeated per head or per copy.

row: rows computed now; key: positions attended to; head: query heads; n_kv: key/value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from videolens.model.decoder.visibility import RowRun, Visible

SMALL = 2**16
"""Rows × keys of a run below which one call under a mask is quicker than two without (on 2 cores)."""

KeyValuePiece = tuple[Tensor, Tensor]
"""Keys and values [batch|1 key n_kv d_head] of neighbouring positions; a batch of one stands for all."""

Partial = tuple[Tensor, Tensor]
"""Attention over some of the keys [batch row head d_head], and the logarithm of its softmax's denominator."""


def attend(
    q: Float[Tensor, "batch row head d_head"], pieces: Sequence[KeyValuePiece], visible: Visible, scale: float
) -> Float[Tensor, "batch row head d_head"]:
    """Attention of rows that see what `visible` says.

    1. Every run is computed on its own. Its earlier keys need no mask, its own are causal.
    2. On the CPU these are two kernel calls, joined by their softmax denominators: keys that many copies of a prompt
       share are then never copied, and all copies' rows meet them in one call. (A few hundred keys are quicker copied
       together and masked.) Elsewhere, and where gradients are
       wanted, the keys are put together and one call sees the triangle at their lower right.
    3. A row that sees nothing gives zeros.

    Args:
        q: rotated queries.
        pieces: rotated keys and values [batch|1 key n_kv d_head]; end to end they are the keys of `visible`.
        visible: what the rows see.
        scale: of the scores.
    """
    found = [_run(q[:, run.first : run.stop], pieces, run, scale) for run in visible.runs]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def attend_under(
    q: Float[Tensor, "batch row head d_head"],
    pieces: Sequence[KeyValuePiece],
    bias: Float[Tensor, "batch_or_1 head_or_1 row key"],
    scale: float,
) -> Float[Tensor, "batch row head d_head"]:
    """Attention of rows to whose scores a bias is added, −∞ for keys that they do not see: one call over all keys."""
    k, v = _gathered(pieces, [(0, bias.shape[-1])], len(q))
    return _fused(q, k, v, scale, attn_mask=bias).masked_fill((bias == -torch.inf).all(-1).mT[..., None], 0.0)


def _run(q: Tensor, pieces: Sequence[KeyValuePiece], run: RowRun, scale: float) -> Tensor:
    if not run.spans and run.own is None:
        return torch.zeros_like(q)
    if run.mask is not None:
        return _masked(q, pieces, run, scale)
    alone = len(pieces) == 1 and not run.spans and run.repeat == 1
    length = q.shape[1] // run.repeat
    if not alone and not _joinable(q, pieces):
        return torch.cat([_together(each, pieces, part, scale) for each, part in _single(q, run)], dim=1)
    if not alone and run.own is not None and length > 1 and length * (_n_keys(run) + length) <= SMALL:
        return _small(q, pieces, run, scale)
    parts = []
    for first, stop in run.spans:
        for k, v in _slices(pieces, first, stop):
            parts.append(_part(q, k, v, causal=False, scale=scale))
    if run.own is not None:
        [(k, v)] = _slices(pieces, run.own, run.own + q.shape[1])
        if alone:
            return _fused(q, k, v, scale, is_causal=q.shape[1] > 1)
        batch, _, *shape = q.shape
        q, k, v = (x.unflatten(1, (run.repeat, length)).flatten(0, 1) if run.repeat > 1 else x for x in (q, k, v))
        z, weight = _part(q, k, v, causal=length > 1, scale=scale)
        parts.append((z.reshape(batch, -1, *shape), weight.reshape(batch, -1, shape[0], 1)))
    return _joined(parts)


def _part(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
    """One kernel call. Where all copies share the keys, their rows are the rows of one."""
    batch = len(q)
    shared = len(k) == 1 and batch > 1
    if shared:
        q = q.reshape(1, -1, *q.shape[2:])
    z, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), 0.0, causal, scale=scale
    )
    z, weight = z.transpose(1, 2), weight.transpose(1, 2)[..., None]
    return (z.unflatten(1, (batch, -1))[0], weight.unflatten(1, (batch, -1))[0]) if shared else (z, weight)


def _joined(parts: Sequence[Partial]) -> Tensor:
    """Attention over all the parts' keys: each part weighs as much as its softmax denominator."""
    z, weight = parts[0]
    if len(parts) == 1:
        return z
    dtype, z = z.dtype, z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
    for i, (other, other_weight) in enumerate(parts[1:]):
        share = torch.sigmoid(other_weight - weight).to(z.dtype)
        z = torch.lerp(z, other.to(z.dtype), share)
        if i + 2 < len(parts):
            weight = torch.logaddexp(weight, other_weight)
    return z.to(dtype)


def _small(q: Tensor, pieces: Sequence[KeyValuePiece], run: RowRun, scale: float) -> Tensor:
    """One call under a mask of a few rows × keys: below some size quicker than two calls and their joining."""
    assert run.own is not None
    batch, n, *shape = q.shape
    length = n // run.repeat
    [own] = _slices(pieces, run.own, run.own + n)
    found = []
    for i in (0, 1):
        mine = own[i].unflatten(1, (run.repeat, length)).flatten(0, 1)
        before = [piece[i] for first, stop in run.spans for piece in _slices(pieces, first, stop)]
        seen = [x.expand(batch, -1, -1, -1) for x in before]
        if run.repeat > 1:
            seen = [x.repeat_interleave(run.repeat, dim=0) for x in seen]
        found.append(torch.cat([*seen, mine], dim=1))
    q = q.unflatten(1, (run.repeat, length)).flatten(0, 1)
    mask = _triangle(length, _n_keys(run) + length, q.dtype)
    k, v = found
    return _fused(q, k, v, scale, attn_mask=mask).reshape(batch, n, *shape)


@lru_cache(maxsize=16)
def _triangle(rows: int, keys: int, dtype: torch.dtype) -> Tensor:
    """What is added to scores where the last keys are the rows: 0 up to each row's own key, −∞ behind it."""
    seen = torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)
    return torch.zeros(rows, keys, dtype=dtype).masked_fill(~seen, -torch.inf)


def _n_keys(run: RowRun) -> int:
    """Keys that all rows of a run see, its own aside."""
    return sum(stop - first for first, stop in run.spans)


def _together(q: Tensor, pieces: Sequence[KeyValuePiece], run: RowRun, scale: float) -> Tensor:
    """One call over the keys put together: the public way to what `_part` and `_joined` do."""
    spans = [*run.spans, *([] if run.own is None else [(run.own, run.own + q.shape[1])])]
    k, v = _gathered(pieces, spans, len(q))
    if run.own is None or q.shape[1] == 1:
        return _fused(q, k, v, scale)
    if not run.spans:
        return _fused(q, k, v, scale, is_causal=True)
    return _fused(q, k, v, scale, attn_mask=causal_lower_right(q.shape[1], k.shape[1]))


def _single(q: Tensor, run: RowRun) -> list[tuple[Tensor, RowRun]]:
    """The equal runs that a run stands for, one by one."""
    if run.repeat == 1:
        return [(q, run)]
    assert run.own is not None
    length = q.shape[1] // run.repeat
    return [
        (q[:, i * length : (i + 1) * length], RowRun(0, length, run.spans, own=run.own + i * length))
        for i in range(run.repeat)
    ]


def _masked(q: Tensor, pieces: Sequence[KeyValuePiece], run: RowRun, scale: float) -> Tensor:
    assert run.mask is not None
    k, v = _gathered(pieces, run.spans, len(q))
    mask = run.mask.to(q.device)
    z = _fused(q, k, v, scale, attn_mask=mask[None, None])
    return z.masked_fill(~mask.any(-1)[:, None, None], 0.0)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, **how: object) -> Tensor:
    grouped = q.shape[2] != k.shape[2]
    if grouped and q.is_cuda and "attn_mask" in how:
        # No fused CUDA kernel takes both a mask and grouped heads; expanding k and v is cheaper than their scores.
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
        grouped = False
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped, **how).transpose(1, 2)  # type: ignore[arg-type]


def _slices(pieces: Sequence[KeyValuePiece], first: int, stop: int) -> list[KeyValuePiece]:
    """Keys first … stop − 1, from every piece that has some of them."""
    found, start = [], 0
    for k, v in pieces:
        low, high = max(first - start, 0), min(stop - start, k.shape[1])
        if low < high:
            found.append((k[:, low:high], v[:, low:high]))
        start += k.shape[1]
    return found


def _gathered(pieces: Sequence[KeyValuePiece], spans: Sequence[tuple[int, int]], batch: int) -> KeyValuePiece:
    """The spans' keys and values, end to end, for every copy."""
    found = [piece for first, stop in spans for piece in _slices(pieces, first, stop)]
    if len(found) == 1:
        k, v = found[0]
        return k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)
    k, v = (torch.cat([piece[i].expand(batch, -1, -1, -1) for piece in found], dim=1) for i in (0, 1))
    return k, v


def _joinable(q: Tensor, pieces: Sequence[KeyValuePiece]) -> bool:
    """Whether the kernel that also gives the denominators may be used: it is for the CPU and has no gradients."""
    wants_grad = q.requires_grad or any(x.requires_grad for piece in pieces for x in piece)
    return q.is_cpu and not (torch.is_grad_enabled() and wants_grad)
