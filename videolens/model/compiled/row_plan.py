"""What a compiled pathway computes of a prompt: rows, keys and queries of every layer, counted and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from jaxtyping import Int64
from torch import Tensor

from videolens.model.compiled.opening import Opening
from videolens.model.cost import Cost
from videolens.model.decoder.views import HeadView
from videolens.prompt.selections import OF_FRAMES, PARTS, ROLES

_UNNAMED = {"glue", "suffix", *OF_FRAMES} - {"video"}  # roles that published masks leave out


@dataclass(frozen=True, eq=False)
class LayerRows:
    """What one layer computes. Layers that compute the same have one object.

    Attributes:
        entering: positions whose residual enters: all that a query or a later token reads, and the queries themselves.
        asked: which of them (as indices) are queries, and leave the layer; None: all.
        views: what the queries see among the entering ones.
        kept: which of the entering ones (as indices) later tokens read: what the cache holds; None: nothing is
            generated.
        open_later: whether each later token reads all that is kept, and all later ones before it.
        pairs: (query, key) pairs that attention computes, mean over heads and prompts.
    """

    entering: Int64[Tensor, " entering"]
    asked: Int64[Tensor, " query"] | None
    views: tuple[HeadView, ...]
    kept: Int64[Tensor, " kept"] | None
    open_later: bool
    pairs: int

    @property
    def queries(self) -> int:
        """How many rows leave the layer."""
        return len(self.entering if self.asked is None else self.asked)

    @cached_property
    def cached(self) -> Int64[Tensor, " kept"]:
        """The positions whose keys and values the cache holds."""
        return self.entering[:0] if self.kept is None else self.entering[self.kept]


@dataclass(frozen=True, eq=False)
class RowPlan:
    """What every layer computes of a prompt.

    Attributes:
        layers: from the first layer on.
        cost: of the model's layers.
        opening: what is open.
    """

    layers: tuple[LayerRows, ...]
    cost: Cost
    opening: Opening

    @cached_property
    def flops(self) -> int:
        """Operations of a forward per prompt, the unembedding of one row included."""
        each = [self.cost.layer(len(one.entering), one.queries, one.pairs) for one in self.layers]
        return sum(each) + self.cost.read_out(1)

    @property
    def full_flops(self) -> int:
        """Operations of the full forward."""
        return self.cost.forward(self.opening.n_pos, len(self.layers))

    @property
    def bound(self) -> float:
        """How many times fewer operations these are: how many times faster it can be at most."""
        return self.full_flops / self.flops

    @cached_property
    def n_bytes(self) -> int:
        """Memory that the plan takes: positions, and masks of rows that have no structure."""
        each = set(self.layers)
        masks = [run.mask for one in each for *_, visible in one.views for run in visible.runs if run.mask is not None]
        return sum(tensor.nbytes for tensor in [*masks, *(one.entering for one in each)])

    def cache_bytes(self, n_new: int | None = None) -> int:
        """Bytes of the keys and values of a prompt that are kept, when so many tokens have followed; None: all."""
        n_new = self.opening.n_new if n_new is None else n_new
        return sum(self.cost.keys_values(len(one.cached) + n_new) for one in self.layers)

    def full_cache_bytes(self, n_new: int | None = None) -> int:
        """The same where all keys and values are kept."""
        n_new = self.opening.n_new if n_new is None else n_new
        return len(self.layers) * self.cost.keys_values(self.opening.n_pos + n_new)

    def __str__(self) -> str:
        n_pos, n_new = self.opening.n_pos, self.opening.n_new
        lines = [
            f"{n_pos} tokens: {self.flops / 1e9:,.2f} of {self.full_flops / 1e9:,.2f} GFLOP of the full forward, "
            f"{self.bound:.2f} times fewer operations",
            "layers     keys  queries  pairs, % of causal   GFLOP  keys cached",
            *self._lines(),
        ]
        if n_new:
            bytes_, full = self.cache_bytes(), self.full_cache_bytes()
            lines.append(
                f"cache when {n_new + 1} tokens are written: {bytes_ / 2**20:,.2f} of {full / 2**20:,.2f} MiB, "
                f"{full / bytes_:.1f} times less"
            )
        return "\n".join([*lines, *filter(None, (self._reason(part) for part in ("part V", "part Q")))])

    def _lines(self) -> Iterator[str]:
        """The layers, from 1; those that compute the same in one line."""
        n_pos = self.opening.n_pos
        for one, alike in groupby(range(len(self.layers)), key=lambda layer: self.layers[layer]):
            numbers = [layer + 1 for layer in alike]
            words = f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
            share = 100 * one.pairs / (n_pos * (n_pos + 1) / 2)
            gflop = self.cost.layer(len(one.entering), one.queries, one.pairs) / 1e9
            kept = len(one.cached) if self.opening.n_new else ""
            yield f"{words:8}{len(one.entering):7d}{one.queries:9d}{share:20.1f}{gflop:8.2f}{kept:13}"

    def _reason(self, part: str) -> str:
        """Up to which layer a part of the prompt is computed, and who reads it there."""
        of_part = self.opening.parts[PARTS.index(part)].any(0)
        within = [bool(of_part[one.entering.cpu()].any()) for one in self.layers]
        if not of_part.any():
            return ""
        if not any(within):
            return f"{part} is never computed: nothing that is open leads from it to the last token"
        layer = max(i for i, inside in enumerate(within) if inside)
        readers = self._readers(layer, part)
        said = f"{part} is computed up to layer {layer + 1} of {len(self.layers)}, read there by {', '.join(readers)}"
        if part == "part V" and set(readers) <= _UNNAMED:
            said += ": a leak, for the masks do not name these, and until then its rows cannot be dropped"
        return said

    def _readers(self, layer: int, part: str) -> list[str]:
        """The roles, outside a part, whose queries read it in a layer."""
        one, of_part = self.layers[layer], self.opening.parts[PARTS.index(part)]
        rows = (one.entering if one.asked is None else one.entering[one.asked]).cpu()
        read = (self.opening(layer, rows, self.opening.n_pos).any(1) & of_part[:, None]).any(-1) & ~of_part[:, rows]
        found = [ROLES[code] for code in self.opening.role[:, rows][read].unique().tolist()]
        if of_part[:, one.cached.cpu()].any():
            found.append("what is generated")
        return found
