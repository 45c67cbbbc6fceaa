"""How many attention edges are open, and how many of them are live, where something says who may attend to whom.

Map the Flow counts the allowed (query, key) pairs. But a pair carries nothing if no later layer reads its query: an
edge is *live* if it lies on some path to the last token. Only live edges say how much of a model a pathway keeps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from videolens.errors import SelectionError
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

Allowed = Callable[[int], Bool[Tensor, "query key"]]
"""0-based layer → causal pairs that are open there."""


class OpenEdges(AsAttentionMask, ABC):
    """Counts of open edges, for a class that says layer by layer what is open: pathways and random cuts."""

    if TYPE_CHECKING:

        @property
        def n_layers(self) -> int:
            """Depth of the model it is for."""

    @abstractmethod
    def allowed(self, prompt: Prompt | TokenMap, layer: int) -> Bool[Tensor, "query key"]:
        """Causal pairs that are open in a 0-based layer."""

    def edges(self, prompt: Prompt | TokenMap) -> int:
        """Open causal pairs, summed over layers. With nothing cut: layers × n (n + 1) / 2."""
        return count_edges(self._each(prompt), self.n_layers)

    def live_edges(self, prompt: Prompt | TokenMap) -> int:
        """Open pairs on some path to the last token. With nothing cut: (layers − 1) × n (n + 1) / 2 + n."""
        tokens = prompt if isinstance(prompt, TokenMap) else prompt.tokens
        return count_live(self._each(tokens), self.n_layers, int(tokens["last"][0]))

    def _each(self, prompt: Prompt | TokenMap) -> Allowed:
        return lambda layer: self.allowed(prompt, layer)


def causal_mask(n_pos: int) -> Bool[Tensor, "query key"]:
    """True where a position may attend: to itself and to all before it."""
    return torch.ones(n_pos, n_pos, dtype=torch.bool).tril()


def count_edges(allowed: Allowed, n_layers: int) -> int:
    """Open pairs, summed over layers; n (n + 1) / 2 in a layer that blocks nothing."""
    return sum(_number(allowed(layer)) for layer in range(n_layers))


def live_in_full(n_pos: int, n_layers: int) -> int:
    """Live edges with nothing cut: all causal pairs but in the last layer, where one row is wanted."""
    return (n_layers - 1) * (n_pos * (n_pos + 1) // 2) + n_pos


def count_live(allowed: Allowed, n_layers: int, last: int) -> int:
    """Open pairs that lie on some path to the last token, summed over layers.

    1. After the last layer one row lives: the last token's.
    2. From the last layer down: the open pairs of living rows live, and so do, one layer below, the rows they read.
    """
    return sum(_number(mask[rows]) for mask, rows in live_rows(allowed, n_layers, last))


def _number(pairs: Bool[Tensor, "query key"]) -> int:
    return int(np.count_nonzero(pairs.cpu().numpy()))  # of bytes, many times faster than torch's sum of int64


def live_rows(
    allowed: Allowed, n_layers: int, last: int
) -> Iterator[tuple[Bool[Tensor, "query key"], Bool[Tensor, " pos"]]]:
    """Per layer, from the last one down: the open pairs, and the rows of that layer whose result is still read."""
    rows: Tensor | None = None
    for layer in reversed(range(n_layers)):
        mask = allowed(layer)
        if rows is None:
            rows = torch.zeros(len(mask), dtype=torch.bool)
            rows[last] = True
        yield mask, rows
        rows = rows | mask[rows].view(torch.uint8).amax(0).bool()  # any(0), but faster


def check_parts(tokens: TokenMap) -> None:
    """A closed pathway is about a video and a question after it: without either its masks cut what they should not.

    A `SelectionError` if part V or part Q is empty. A question before the video is in part P.
    """
    for one in tokens.maps if isinstance(tokens, TokenMaps) else [tokens]:
        for part, what in (("part V", "no video"), ("part Q", "no question after its video")):
            if len(one[part]) == 0:
                raise SelectionError(
                    f"a closed pathway leads from the video through the question, but the prompt has {what}"
                )
