"""Which (query, key) pairs a knockout blocks in a prompt, and in what is generated after it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.selections import is_by_role, part_frames
from videolens.prompt.tokens import TokenMap

_ROWS_AT_A_TIME = 1024
GENERATED = frozenset(("response", "all", "part A"))
"""Selections that generated tokens belong to, as "last" does."""


class Cut(NamedTuple):
    """What is cut: keys in `source` for queries in `target`; of earlier frames or of the same frame only, or of any."""

    source: str
    target: str
    earlier_frames: bool
    same_frame: bool = False


class Chosen:
    """The rows of a selection, among those of a prompt and of what is generated after it.

    Attributes:
        member: the selection's positions in the prompt; "last" is left out, for what it means depends on the row.
        names: what it joins.
    """

    def __init__(self, selection: str, tokens: TokenMap) -> None:
        self.names = frozenset(part.strip() for part in selection.split("|"))
        self.member = torch.zeros(tokens.n_pos, dtype=torch.bool)
        for name in self.names - {"last"}:
            self.member[tokens[name]] = True
        self._n_pos, self._last = tokens.n_pos, int(tokens["last"][0])

    @property
    def generated(self) -> bool:
        """Whether tokens that are generated after the prompt belong to it: each was the newest when it was computed."""
        return bool(self.names & {"last", *GENERATED})

    def of(self, rows: Int[Tensor, " row"]) -> Bool[Tensor, " row"]:
        """Which of the rows belong to it."""
        hit = within(self.member, rows)
        if "last" in self.names:
            hit = hit | (rows == self._last)
        return hit | (rows >= self._n_pos) if self.generated else hit


def within(member: Bool[Tensor, " pos"], positions: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which of some positions, of which some may lie behind the prompt, are members."""
    inside = member.to(positions.device)[positions.clamp(max=len(member) - 1)]
    return inside & (positions < len(member))


class Blocked:
    """Which (query, key) pairs a knockout blocks, for any rows and keys of a prompt and what is generated after it."""

    def __init__(self, cut: Cut, tokens: TokenMap) -> None:
        self.n_pos = tokens.n_pos
        self.source, self.target = Chosen(cut.source, tokens), Chosen(cut.target, tokens)
        self.frame = part_frames(tokens.role, tokens.frame) if cut.earlier_frames or cut.same_frame else None
        self.same_frame = cut.same_frame
        self.last = int(tokens["last"][0])

    @cached_property
    def cuts(self) -> bool:
        """Whether it removes an edge of the prompt, or of a token that is generated after it."""
        later = self.frame is None and self.target.generated
        return self.first_row is not None or bool(later and (self.source.generated or self.source.member.any()))

    @cached_property
    def first_row(self) -> int | None:
        """The first row that loses an edge."""
        for rows, part in self.causal():
            if bool(part.any()):
                return int(rows[part.any(dim=1)][0])
        return None

    def causal(self) -> Iterable[tuple[Int64[Tensor, " row"], Bool[Tensor, "row key"]]]:
        """Blocked causal pairs, a few rows at a time so that a long prompt needs no n × n matrix."""
        keys = torch.arange(self.n_pos)
        for rows in self.rows(keys).split(_ROWS_AT_A_TIME):
            yield rows, self.edges(rows, keys) & (keys <= rows[:, None])

    def rows(self, rows: Int[Tensor, " query"]) -> Int64[Tensor, " hit"]:
        """Indices of those rows that are targets."""
        return self.target.of(rows).nonzero().flatten()

    def edges(self, rows: Int[Tensor, " query"], keys: Int[Tensor, " key"]) -> Bool[Tensor, "query key"]:
        """Blocked pairs, for rows that are targets."""
        hit = within(self.source.member, keys)
        if self.source.names & GENERATED:
            hit = hit | (keys >= self.n_pos)
        pairs = hit.expand(len(rows), -1)
        if "last" in self.source.names:
            # the newest token, seen from a row: the row itself
            newest = (rows == self.last) | (rows >= self.n_pos)
            pairs = pairs | ((keys == rows[:, None]) & newest[:, None])
        if self.frame is not None:
            of_row, of_key = self._frame(rows), self._frame(keys)
            fits = of_key == of_row[:, None] if self.same_frame else of_key < of_row[:, None]
            pairs = pairs & (of_key >= 0) & fits
        return pairs

    def _frame(self, positions: Int[Tensor, " n"]) -> Int64[Tensor, " n"]:
        assert self.frame is not None
        frame = self.frame.to(positions.device)[positions.clamp(max=self.n_pos - 1)]
        return torch.where(positions < self.n_pos, frame, -1)


# A sweep asks for the same edges once per window; they are worked out once for as long as the prompt lives.
_known: WeakKeyDictionary[TokenMap, dict[Cut, Blocked]] = WeakKeyDictionary()


def blocked(cut: Cut, tokens: TokenMap) -> Blocked:
    """The pairs of one prompt that a cut blocks."""
    known = _known.setdefault(tokens, {})
    if cut not in known:
        known[cut] = Blocked(cut, tokens)
    return known[cut]


def blocked_each(cut: Cut, tokens: TokenMap) -> list[Blocked]:
    """The same for every prompt of a batch of unequal ones; a list of one where it is the same in all of them."""
    if not isinstance(tokens, TokenMaps):
        return [blocked(cut, tokens)]
    same = is_by_role(cut.source) and is_by_role(cut.target) and tokens.alike
    return [blocked(cut, one) for one in (tokens.maps[:1] if same else tokens.maps)]
