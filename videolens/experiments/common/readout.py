"""Reading words off the residual stream, layer by layer: the logit lens and its variants, by name.

Map the Flow, sections "Generation probability" and "Logit lens on video tokens".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.engine.full import wide
from videolens.errors import VideolensError, near
from videolens.model.transformer import HookedVideoTransformer

FINAL_NORM = "final norm"
"""Final norm, then unembedding: what the model itself does after its last layer."""
NO_NORM = "no norm (published)"
"""Unembedding without the norm: the published probabilities of LLaVA and InternVL."""
INPUT_EMBEDDING = "input embedding, no norm (published)"
"""The *input* embedding, without the norm: the published words of video tokens."""

_LOGITS_AT_ONCE = 2**23


@torch.no_grad()
def read_logits(
    model: HookedVideoTransformer, residual: Float[Tensor, "row d_model"], lens: str
) -> Float[Tensor, "row d_words"]:
    """Logits of hidden states through one of the lenses, in float32 or wider."""
    if lens == FINAL_NORM:
        return wide(model.unembed(model.ln_final.normalise(residual)))
    if lens == NO_NORM:
        return wide(model.unembed(residual))
    if lens == INPUT_EMBEDDING:
        return wide(residual @ model.W_E.t())
    raise VideolensError(near(lens, (FINAL_NORM, NO_NORM, INPUT_EMBEDDING), kind="lens"))


def top_words(
    model: HookedVideoTransformer, residual: Float[Tensor, "row d_model"], lens: str, top: int
) -> tuple[Int64[Tensor, "row top"], Float[Tensor, "row top"]]:
    """(tokens, probabilities) that each hidden state ranks first, the likeliest first; on the CPU.

    Rows go through the vocabulary a few at a time: no more than 2²³ logits (32 MiB) exist at once.
    """
    tokens, probabilities = [], []
    for rows in residual.split(max(1, _LOGITS_AT_ONCE // model.cfg.d_vocab)):
        logits = read_logits(model, rows, lens)
        best = logits.topk(top, dim=-1)
        tokens.append(best.indices.cpu())
        probabilities.append((best.values - logits.logsumexp(-1, keepdim=True)).exp().cpu())
    return torch.cat(tokens), torch.cat(probabilities)


def listeners(
    layers: Iterable[int],
    keep: Callable[[int, Tensor], None],
    *,
    point: str = "hook_resid_post",
    to: torch.device | None = None,
) -> list[tuple[str, Callable[..., None]]]:
    """Hook functions that give `keep` each 0-based layer and what its hook point holds; by default what leaves the
    layer [batch row d_model]. Listed behind an intervention's, they see what it has made of it.

    `to`: the device it is given on; None: the layer's own.
    """
    return [(f"blocks.{layer}.{point}", partial(_hand_on, keep, layer, to)) for layer in layers]


def _hand_on(
    keep: Callable[[int, Tensor], None], layer: int, to: torch.device | None, value: Tensor, hook: Any
) -> None:
    keep(layer, value if to is None else value.to(to))
