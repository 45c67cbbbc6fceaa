"""Norm weights folded into what reads through them, as TransformerLens does with `fold_ln`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from videolens.errors import ModelError
from videolens.model.decoder.layers import RMSNorm, matrix


@torch.no_grad()
def fold_norms(model: Any) -> None:
    """Multiply every norm's weight into the matrices that read the normalised residual, and set it to one.

    In exact arithmetic no output changes, and none does but for rounding: (w ∘ x) Wᵀ = x (W ∘ w)ᵀ. Weights that were
    shared with the checkpoint are copies afterwards; an unembedding that was tied to the embedding is a matrix of its
    own, for the embedding stays as it is. Norms of single heads (Qwen3) stay: nothing is read through them.

    Raises:
        ModelError: a product is not finite in the model's dtype, or the weights are quantised.
    """
    for block in model.blocks:
        for reader in (block.attn.q, block.attn.k, block.attn.v, block.mlp.gate, block.mlp.up):
            matrix(reader)
    for layer, block in enumerate(model.blocks):
        _fold(block.ln1, (block.attn.q, block.attn.k, block.attn.v), f"layer {layer}'s ln1")
        _fold(block.ln2, (block.mlp.gate, block.mlp.up), f"layer {layer}'s ln2")
    _fold(model.ln_final, (model.unembed,), "ln_final")
    model.cfg.normalization_type = "RMSPre"  # what TransformerLens calls a norm without a weight


def _fold(norm: RMSNorm, readers: tuple[Any, ...], where: str) -> None:
    for reader in readers:
        reader.weight = nn.Parameter(_times(reader.weight, norm.w, where), requires_grad=False)
    norm.w = nn.Parameter(torch.ones_like(norm.w), requires_grad=False)


def _times(weight: Tensor, by: Tensor, where: str) -> Tensor:
    """weight [out in] ∘ by [in], rounded once."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    found = (weight.to(wide) * by.to(wide)).to(weight.dtype)
    if not bool(found.isfinite().all()):
        raise ModelError(f"{where} cannot be folded in {weight.dtype}: a product is not finite; load in float32")
    return found
