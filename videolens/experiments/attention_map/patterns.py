"""Attention of chosen rows: only their patterns are ever materialised, so that it works at any length of prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from videolens.experiments.common.readout import listeners
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

HookFunctions = Sequence[tuple[str, Callable[..., Any]]]


@torch.no_grad()
def read_rows(
    model: HookedVideoTransformer,
    prompt: Prompt,
    rows: Sequence[Int64[Tensor, " _some"]],
    *,
    keys: Int64[Tensor, " key"] | None = None,
    layers: Sequence[int],
    fwd_hooks: HookFunctions = (),
) -> Float64[Tensor, "layer word head key"]:
    """What some tokens look at, the mean over each group of them.

    1. Run the prompt up to the last layer that is asked for; patterns exist for the rows of all groups, and for no
       others.
    2. Per layer: average the rows of each group, keep the keys that are asked for.

    Args:
        model: the model.
        prompt: a single prompt.
        rows: positions of each group, a word's tokens.
        keys: positions that are looked at; None: all.
        layers: 0-based, in the order in which they come back.
        fwd_hooks: hook functions to run under, such as a knockout's.
    """
    together = torch.cat(list(rows)).unique()
    member = torch.stack([torch.isin(together, group).double() / len(group.unique()) for group in rows])
    kept: dict[int, Tensor] = {}

    # 2.
    def keep(layer: int, pattern: Tensor) -> None:
        seen = pattern[0] if keys is None else pattern[0][..., keys.to(pattern.device)]
        kept[layer] = torch.einsum("wr,hrk->whk", member.to(pattern.device), seen.double()).cpu()

    # 1.
    listening = listeners(layers, keep, point="attn.hook_pattern")
    model.run_with_hooks(prompt, rows=together, stop_at_layer=max(layers) + 1, fwd_hooks=[*fwd_hooks, *listening])
    return torch.stack([kept[layer] for layer in layers])
