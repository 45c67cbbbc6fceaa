"""A small mask picture: which tokens may look at which, layer by layer, in a prompt made up to show it."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.layer_sets import layer_words
from videolens.model.decoder.masks import MaskPoint, masked
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

NAMES = ("text", "frame 0", "frame 0", "frame 1", "frame 1", "frame 2", "frame 2", "stem", "A", "B", "end", "last")
"""What the positions of the made-up prompt are: three frames of two tokens, a stem, two options of which A is right."""


@cache
def example() -> Prompt:
    """A prompt of twelve positions that has everything a route can name but generated tokens."""
    spans = {"system": [0], "stem": [7], "true option": [8], "false options": [9], "suffix": [10, 11]}
    tokens = TokenMap.from_spans(12, spans, grid=(3, 1, 2), video=range(1, 7))
    empty = torch.zeros(1, 12, 1)
    return Prompt(torch.zeros(1, 12, dtype=torch.int64), tokens, empty, (empty, empty))


def pictures(intervention: Any) -> list[tuple[str, Bool[Tensor, "query key"]]]:
    """(layers in words, what is open) of each different mask; of heads, what is open to any of those it acts on.

    Raises:
        VideolensError: it acts on something else than masks, or on what the made-up prompt does not have.
    """
    at: dict[int, list[Any]] = defaultdict(list)
    for name, function in intervention.hooks(example()):
        parts = str(name).split(".")
        if parts[0] != "blocks" or parts[-1] != "hook_mask":
            raise VideolensError(f"{type(intervention).__name__} acts at {name!r}, not on a mask")
        at[int(parts[1])].append(function)
    heads = getattr(intervention, "heads", None)
    alike: list[tuple[Bool[Tensor, "query key"], list[int]]] = []
    for layer, functions in sorted(at.items()):
        open_ = _open(layer, functions, heads)
        for mask, layers in alike:
            if torch.equal(mask, open_):
                layers.append(layer)
                break
        else:
            alike.append((open_, [layer]))
    return [(layer_words(layers), mask) for mask, layers in alike]


def _open(layer: int, functions: list[Any], heads: tuple[int, ...] | None) -> Bool[Tensor, "query key"]:
    positions = torch.arange(len(NAMES))
    n_heads = 1 if heads is None else max(heads) + 1
    points = [MaskPoint(f"blocks.{layer}.attn.hook_mask", n_heads) for _ in functions]
    allowed = masked(points, functions, positions, positions, n_heads)[0]
    acted = allowed if heads is None or len(allowed) == 1 else allowed[list(heads)]
    return acted.any(0)
