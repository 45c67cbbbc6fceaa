"""A run in which every token sees the others less: the gates of an integrated attribution.

The unnormalised weight exp(score) of every pair is multiplied by a gate, but for each token's weight on itself: if all
had the same gate, normalising would undo it. Of plain attention a row needs its result z and its share s on itself:
z(gate) = (gate · z + (1 − gate) · s · v_own) / (gate + (1 − gate) · s), which at gate 0 is the token's own value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from videolens.model.decoder.attention import Attention

_AT_ONCE = 2**22  # scores of a chunk of rows

Hooks = list[tuple[str, Callable[..., Tensor | None]]]


def gate_hooks(attention: Attention, gate: float) -> Hooks:
    """Hook functions for a whole prompt that put a layer's attention under a gate; none at gate 1."""
    if gate == 1:
        return []
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        seen[hook.name.rpartition(".")[2]] = value

    def weigh(z: Tensor, hook: Any) -> Tensor:
        q, k, v = seen["hook_rot_q"], seen["hook_rot_k"], seen["hook_v"]
        own = own_share(q[0], k[0], attention.scale)[None, ..., None]
        group = q.shape[2] // v.shape[2]
        mixed = gate * z.to(own.dtype) + (1 - gate) * own * v.repeat_interleave(group, dim=2).to(own.dtype)
        return (mixed / (gate + (1 - gate) * own)).to(z.dtype)

    name = f"blocks.{attention.layer}.attn."
    return [*((name + point, keep) for point in ("hook_rot_q", "hook_rot_k", "hook_v")), (name + "hook_z", weigh)]


def own_share(
    q: Float[Tensor, "pos head d_head"], k: Float[Tensor, "pos n_kv d_head"], scale: float
) -> Float[Tensor, "pos head"]:
    """The share of its attention that every token gives itself, in every head; float32 or wider.

    A few rows at a time, also for gradients: a chunk's scores are computed again in the backward.
    """
    at_once = max(1, _AT_ONCE // (q.shape[1] * len(k)))
    found = []
    for first in range(0, len(q), at_once):
        stop = min(first + at_once, len(q))
        if torch.is_grad_enabled():
            found.append(checkpoint(_own_share, q[first:stop], k[:stop], scale, use_reentrant=False))
        else:
            found.append(_own_share(q[first:stop], k[:stop], scale))
    return torch.cat(found)


def _own_share(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Of some rows, whose keys are the last ones."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    q = q.to(dtype).unflatten(1, (k.shape[1], -1))
    scores = torch.einsum("rngd,knd->rngk", q, k.to(dtype)) * scale
    rows, keys = torch.arange(len(k) - len(q), len(k), device=q.device), torch.arange(len(k), device=q.device)
    scores = scores.masked_fill((keys > rows[:, None])[:, None, None], -torch.inf)
    own = scores.gather(-1, rows[:, None, None, None].expand(-1, *scores.shape[1:3], 1))[..., 0]
    return (own - scores.logsumexp(-1)).exp().flatten(1)
