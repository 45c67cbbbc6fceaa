"""Gates: what hook functions multiply unnormalised attention weights by, as a bias of the scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.decoder.kernels import KeyValuePiece, attend_under
from videolens.model.decoder.rows import Rows, fire, is_listened_to

Bias = Float[Tensor, "batch_or_1 head_or_1 row key"]


def bias_of(point: HookPoint, at: Rows, batch: int, n_heads: int) -> Bias | None:
    """The logarithms of a layer's gates, which are added to its scores. None where all gates are 1.

    Raises:
        ModelError: a hook function gave something else than gates of these rows and keys, negative or not finite ones.
    """
    if not is_listened_to(point):
        return None
    point.ctx["n_heads"] = n_heads
    gates = fire(point, torch.ones(at.causal.shape, device=at.causal.device), at, may_grow=True)
    check_gates(gates, str(point.name), batch, n_heads, at.causal.shape[-2:])
    return None if not gates.requires_grad and bool((gates == 1).all()) else gates.log()


def check_gates(gates: Tensor, point: str, batch: int, n_heads: int, size: Sequence[int]) -> None:
    """Whether a hook function gave gates of so many rows and keys.

    Raises:
        ModelError: it did not, or negative or not finite ones.
    """
    rows, keys = size
    fits = gates.ndim == 4 and gates.shape[0] in (1, batch) and gates.shape[1] in (1, n_heads)
    if not gates.is_floating_point() or not fits or tuple(gates.shape[-2:]) != (rows, keys):
        raise ModelError(
            f"a hook on {point} returned {gates.dtype} {tuple(gates.shape)}; it must give floating-point gates "
            f"[batch|1 head|1 {rows} {keys}] for a batch of {batch} and {n_heads} heads, 1 = as it is"
        )
    if not bool((gates >= 0).all() & gates.isfinite().all()):
        raise ModelError(
            f"a hook on {point} returned gates between {float(gates.min())} and {float(gates.max())}: attention "
            "weights are multiplied by them, so they must be finite and not below 0"
        )


def biased_rows(bias: Bias) -> Int64[Tensor, " some"]:
    """The rows (as indices) that a bias changes; all of them where its gradient is wanted."""
    if bias.requires_grad:
        return torch.arange(bias.shape[-2], device=bias.device)
    return (bias != 0).any(-1).any(0).any(0).nonzero().flatten()


def attend_biased(
    q: Float[Tensor, "batch some head d_head"],
    pieces: Sequence[KeyValuePiece],
    mask: Bool[Tensor, "batch_or_1 head_or_1 some key"],
    bias: Float[Tensor, "batches heads some key"],
    scale: float,
) -> Float[Tensor, "batch some head d_head"]:
    """Fused attention of some rows under a mask and a bias; a row with no key left gives zeros."""
    return attend_under(q, pieces, bias.to(q.dtype).masked_fill(~mask, -torch.inf), scale)
