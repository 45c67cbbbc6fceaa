"""What every token reads as after every layer, through the logit lens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from videolens.experiments.attention_map.patterns import HookFunctions
from videolens.experiments.common.readout import FINAL_NORM, listeners, top_words
from videolens.explorer.packing import LEVELS
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

_MOST = 2**20  # words in all that a page takes: three of every token and layer, or only the first


@dataclass(frozen=True, eq=False)
class Words:
    """The likeliest words of every token after every layer.

    rank: the likeliest first; word: of all that occur.

    Attributes:
        texts: every word that occurs, once.
        word: index into `texts`.
        share: its probability, in 255ths.
    """

    texts: tuple[str, ...]
    word: Int64[Tensor, "layer pos rank"]
    share: UInt8[Tensor, "layer pos rank"]


@torch.no_grad()
def read_words(
    model: HookedVideoTransformer, prompt: Prompt, *, fwd_hooks: HookFunctions = (), top: int = 3
) -> Words | None:
    """Words of all positions after all layers; None where the model has no tokenizer to write them with.

    Layers count from 0: layer l is what leaves the l-th block. Where a prompt is long, only the likeliest word is kept.
    """
    if model.tokenizer is None:
        return None
    n_layers = model.cfg.n_layers
    top = min(top if n_layers * prompt.tokens.n_pos * top <= _MOST else 1, model.cfg.d_vocab)
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(layer: int, residual: Tensor) -> None:
        kept[layer] = top_words(model, residual[0], FINAL_NORM, top)

    model.run_with_hooks(
        prompt, return_type=None, fwd_hooks=[*fwd_hooks, *listeners(range(n_layers), keep)], stop_at_layer=n_layers
    )
    tokens = torch.stack([kept[layer][0] for layer in range(n_layers)])
    shares = torch.stack([kept[layer][1] for layer in range(n_layers)])
    different, word = tokens.unique(return_inverse=True)
    texts = tuple(model.shown(token) for token in different.tolist())
    return Words(texts, word, (shares * LEVELS).round().to(torch.uint8))
