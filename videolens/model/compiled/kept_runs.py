"""Runs of many questions that are kept, so that the next pathway costs what it changes and no more.

What is kept is, of every question, the residual entering each layer, and each layer's keys and values, as the pathway
that it was last taken to has left them. Rows that this pathway does not want hold what earlier ones have left; nothing
reads them.

member: questions; row, key: positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.model.compiled.changed_rows import ChangedRows, ChangePlan, Changes
from videolens.model.compiled.running import check_unwatched
from videolens.model.decoder.kernels import KeyValuePiece
from videolens.model.decoder.rows import KeyValues, Rows
from videolens.model.running import Running
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt

_AT_ONCE = 32  # questions that are embedded together


class Changed(NamedTuple):
    """What a layer has computed.

    Attributes:
        rows: which.
        k, v: their rotated keys and values.
        leaving: what leaves the layer, of its queries.
    """

    rows: ChangedRows
    k: Float[Tensor, "member row n_kv d_head"]
    v: Float[Tensor, "member row n_kv d_head"]
    leaving: Float[Tensor, "member query d_model"]


class Ran(NamedTuple):
    """Questions that were taken to a pathway.

    Attributes:
        members: which.
        logits: at the last position; None: those of the kept run.
        layers: what each layer has computed.
    """

    members: Int64[Tensor, " member"]
    logits: Float[Tensor, "member d_vocab"] | None
    layers: tuple[Changed | None, ...]


class KeptRuns:
    """Kept runs of questions of one layout. Without gradients.

    Args:
        model: the model.
        prompts: the questions, of the same roles and frames everywhere.
        max_memory: bytes that they may take; questions for which nothing is left run whole each time.

    Attributes:
        changes: plans what they compute.
        n_kept: for how many questions, the first ones, there is room.
        n_bytes: what they take at most.
    """

    def __init__(self, model: Running, prompts: Sequence[Prompt], max_memory: int) -> None:
        self._model, cfg, first = model, model.cfg, prompts[0]
        self.changes = Changes(cfg, first, model.frontend.device)
        self._residual, self._cos, self._sin, self._deepstack = _entered(model, prompts)
        heads = (cfg.n_key_value_heads or cfg.n_heads, cfg.d_head)
        each = cfg.n_layers * first.shape[1] * (cfg.d_model + 2 * heads[0] * heads[1]) * cfg.dtype.itemsize
        # as much again while the next ones are made
        self.n_kept = min(len(prompts), max(max_memory, 0) // (2 * each))
        self.n_bytes = 2 * self.n_kept * each
        shape = (cfg.n_layers, self.n_kept, first.shape[1])
        # of the first layer what enters is the questions' own
        self._residuals = self._residual.new_empty(*shape, cfg.d_model)
        self._k, self._v = (self._residual.new_empty(*shape, *heads) for _ in range(2))

    def run(self, plan: ChangePlan, members: Int64[Tensor, " member"]) -> Ran:
        """Take some questions along a plan. Nothing is kept of it before `keep`."""
        return _run(self._model, self, plan, members)

    def keep(self, ran: Ran) -> frozenset[int]:
        """Their kept runs become those of the pathway that they were taken to. Says whose: some may have no room."""
        members = ran.members[ran.members < self.n_kept]  # what the others computed was let go
        at = members[:, None]
        for layer, one in enumerate(ran.layers):
            if one is None:
                continue
            self._k[layer][at, one.rows.rows] = one.k
            self._v[layer][at, one.rows.rows] = one.v
            if layer + 1 < len(ran.layers):
                self._residuals[layer + 1][at, one.rows.queries] = one.leaving
        return frozenset(members.tolist())

    def through(self, plan: ChangePlan, members: Int64[Tensor, " member"]) -> Ran:
        """`run`, inside a turn of the model."""
        model, leaving, found = self._model, None, list[Changed | None]()
        room = members < self.n_kept
        asked = None
        for layer, one in enumerate(plan.layers):
            if one is None:
                found.append(None)
                leaving = None
                continue
            past = _Joined(self, members, one)
            cos, sin = (
                table[members if len(table) > 1 else slice(None)][:, one.rows] for table in (self._cos, self._sin)
            )
            stacked = tuple(each[members] for each in self._deepstack) if layer < len(self._deepstack) else ()
            at = Rows(one.rows, one.keys, cos, sin, past=past, asked=one.asked, views=one.views, deepstack=stacked)
            leaving, asked = model.blocks[layer](self._entering(layer, one, members, leaving), at), at.queries
            found.append(Changed(one, *(each if room.all() else each[room] for each in (*past.computed, leaving))))
        if found[-1] is None or leaving is None or asked is None:
            return Ran(members, None, tuple(found))
        return Ran(members, model.read_out(leaving, asked)[:, -1], tuple(found))

    def _entering(self, layer: int, one: ChangedRows, members: Tensor, below: Tensor | None) -> Tensor:
        """What enters a layer of the rows that it computes: of the layer below, or of the kept run."""
        mine, theirs = one.came
        if layer and below is not None and len(mine) == len(one.rows):
            return below[:, theirs]
        kept = self._residuals[layer] if layer else self._residual
        entering = kept[members[:, None], one.rows]
        if below is not None and len(mine):
            entering[:, mine] = below[:, theirs]
        return entering

    def joined(
        self, layer: int, members: Tensor, one: ChangedRows, k: Tensor, v: Tensor
    ) -> tuple[Float[Tensor, "member key n_kv d_head"], Float[Tensor, "member key n_kv d_head"]]:
        """Keys and values of all that is read in a layer: those just computed, the others of the kept runs."""
        mine, keys = one.new
        if len(keys) == len(one.keys):
            return (k, v) if len(mine) == len(one.rows) else (k[:, mine], v[:, mine])
        both = []
        for kept, new in ((self._k, k), (self._v, v)):
            every = kept[layer][members[:, None], one.keys]
            every[:, keys] = new[:, mine]
            both.append(every)
        return both[0], both[1]


@dataclass
class _Joined(KeyValues):
    """Keys and values of a layer of kept runs, where some are computed anew."""

    def __init__(self, kept: KeptRuns, members: Tensor, one: ChangedRows) -> None:
        super().__init__()
        self._kept, self._members, self._one = kept, members, one
        self.computed: KeyValuePiece

    def join(
        self, layer: int, k: Float[Tensor, "batch row n_kv d_head"], v: Float[Tensor, "batch row n_kv d_head"]
    ) -> list[KeyValuePiece]:
        """Of all keys that are read; those of the new ones are remembered."""
        self.computed = (k, v)
        return [self._kept.joined(layer, self._members, self._one, k, v)]


@a_run()
@torch.no_grad()
def _run(model: Running, kept: KeptRuns, plan: ChangePlan, members: Int64[Tensor, " member"]) -> Ran:
    check_unwatched(model)
    return kept.through(plan, members)


@a_run()
@torch.no_grad()
def _entered(model: Running, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """The residual that enters the first layer, rotary tables, and what is added after the first layers; one table
    where all questions have the same."""
    found = []
    for first in range(0, len(prompts), _AT_ONCE):
        some = prompts[first : first + _AT_ONCE]
        residual, at = model.enter(Prompt.batch(some))
        found.append((residual, *(table.expand(len(some), -1, -1) for table in (at.cos, at.sin, *at.deepstack))))
    residual, cos, sin, *stacked = (torch.cat(each) for each in zip(*found, strict=True))
    alike = bool((cos == cos[:1]).all()) and bool((sin == sin[:1]).all())
    tables = (cos[:1].clone(), sin[:1].clone()) if alike else (cos, sin)
    return residual, *tables, tuple(stacked)
