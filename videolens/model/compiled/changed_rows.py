"""What must be computed when a prompt goes from one pathway to another: rows that are wanted and come out otherwise.

pos: positions of the prompt; head: 1 where all heads have one mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from videolens.cache import Recent
from videolens.model.compiled.liveness import pairs_of, under_one_mask
from videolens.model.compiled.opening import Opening, layout_of, read_by
from videolens.model.cost import Cost
from videolens.model.decoder.views import HeadView, views_of
from videolens.prompt.prompt import Prompt

_MASKS = 256 * 2**20  # bytes of masks that are kept: layers in which the same is closed come again and again


@dataclass(frozen=True, eq=False)
class Living:
    """What a pathway leaves of a prompt.

    Attributes:
        masks: per layer, who may attend to whom.
        wanted: per layer, the rows whose residual enters it and reaches the last token; at the end that token alone.
    """

    masks: tuple[Bool[Tensor, "head pos pos"], ...]
    wanted: tuple[Bool[Tensor, " pos"], ...]


@dataclass(frozen=True, eq=False)
class ChangedRows:
    """What one layer computes again.

    Attributes:
        rows: positions whose keys and values are computed.
        asked: which of them (as indices) are queries, and leave the layer; None: all.
        keys: positions that the queries read, and the queries themselves.
        views: what the queries see among them.
        new: which of the rows (as indices) are among the keys, and as which key.
        came: which of the rows (as indices) the layer below has computed, and as which of its queries.
        pairs: (query, key) pairs of attention, mean over heads.
    """

    rows: Int64[Tensor, " row"]
    asked: Int64[Tensor, " query"] | None
    keys: Int64[Tensor, " key"]
    views: tuple[HeadView, ...]
    new: tuple[Int64[Tensor, " new"], Int64[Tensor, " new"]]
    came: tuple[Int64[Tensor, " came"], Int64[Tensor, " came"]]
    pairs: int

    @property
    def queries(self) -> Int64[Tensor, " query"]:
        """Positions that leave the layer."""
        return self.rows if self.asked is None else self.rows[self.asked]


@dataclass(frozen=True, eq=False)
class ChangePlan:
    """What a prompt costs that goes from one pathway to another.

    Attributes:
        layers: what each computes; None: nothing.
        cost: of the model's layers.
        n_pos: positions of the prompt.
    """

    layers: tuple[ChangedRows | None, ...]
    cost: Cost
    n_pos: int

    @cached_property
    def flops(self) -> int:
        """Operations per prompt, the unembedding of one row included; 0 if nothing changes for the last token."""
        if self.layers[-1] is None:
            return 0
        each = [self.cost.layer(len(one.rows), len(one.queries), one.pairs) for one in self.layers if one is not None]
        return sum(each) + self.cost.read_out(1)

    @property
    def share(self) -> float:
        """Of the operations of a full forward."""
        return self.flops / self.cost.forward(self.n_pos, len(self.layers))


class Changes:
    """Plans the way from pathway to pathway, for prompts of one layout.

    Args:
        cfg: the model's configuration.
        prompt: one of these prompts.
        device: where the model is.
    """

    def __init__(self, cfg: Any, prompt: Prompt, device: torch.device) -> None:
        self._cfg, self._prompt, self._device = cfg, prompt, device
        self._cost, self._n_pos = Cost.of(cfg), prompt.shape[1]
        self._masks: Recent[Tensor] = Recent(_MASKS, lambda mask: mask.nbytes)

    def living(self, pathway: Any) -> Living:
        """What a pathway leaves of the prompts. It must go by roles (`is_by_roles`), for it is asked of one of them.

        1. After the last layer one row is wanted, the last token's.
        2. Into a layer go the rows that are wanted after it, and all that these read there.
        """
        opening = Opening(self._cfg, pathway, self._prompt, 0)
        every = torch.arange(self._n_pos)
        masks = []
        for layer in range(self._cfg.n_layers):
            found = self._masks.get(opening.kind(layer), partial(self._mask, opening, layer))
            masks.append(found)
        wanted = [every == self._n_pos - 1]
        for mask in reversed(masks):
            after = wanted[-1]
            wanted.append(after | read_by(mask[None, :, after])[0])
        return Living(tuple(masks), tuple(reversed(wanted)))

    def _mask(self, opening: Opening, layer: int) -> Bool[Tensor, "head pos pos"]:
        return opening(layer, torch.arange(self._n_pos), self._n_pos)[0]

    def plan(self, before: Living | None, after: Living) -> ChangePlan:
        """What must be computed; `before`: what the kept run is of, None where there is none.

        In every layer, from the first on,

        1. a row that is wanted after it is computed if it came in otherwise, if it may attend to others than before, if
           it reads a row that came in otherwise, or if the kept run has not computed it;
        2. a key is computed if one of those rows reads it, and it came in otherwise or the kept run does not have it.
        """
        fresh = torch.zeros(self._n_pos, dtype=torch.bool)
        none, layers = fresh, list[ChangedRows | None]()
        for layer, mask in enumerate(after.masks):
            leaving, kept = after.wanted[layer + 1], none
            if before is None:
                rows = leaving
            else:
                kept = before.wanted[layer]
                other = fresh | ~before.wanted[layer + 1]
                if mask is not before.masks[layer]:
                    other = other | _any(mask != before.masks[layer])
                if bool(fresh.any()):
                    other = other | _any(mask[:, :, fresh])
                rows = leaving & other
            if bool(rows.any()):
                keys = read_by(mask[None, :, rows])[0]
                layers.append(self._layer(mask, rows, keys, rows | keys & (fresh | ~kept), fresh))
            else:
                layers.append(None)
            fresh = rows
        return ChangePlan(tuple(layers), self._cost, self._n_pos)

    def _layer(self, mask: Tensor, asked: Tensor, read: Tensor, computed: Tensor, fresh: Tensor) -> ChangedRows:
        queries, rows = _at(asked), _at(computed)
        keys, came = _at(read | asked), _at(fresh)
        views = under_one_mask(views_of(mask[None, :, queries][..., keys], queries, keys), self._device)
        return ChangedRows(
            rows=rows.to(self._device),
            asked=None if len(rows) == len(queries) else torch.searchsorted(rows, queries).to(self._device),
            keys=keys.to(self._device),
            views=views,
            new=self._both(rows, keys),
            came=self._both(rows, came),
            pairs=pairs_of(views, len(mask)),
        )

    def _both(self, some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of what both have, in each."""
        shared = some[torch.isin(some, others)]
        return torch.searchsorted(some, shared).to(self._device), torch.searchsorted(others, shared).to(self._device)


def layouts(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Which of some prompts have the same roles and frames everywhere, as indices."""
    alike: dict[object, list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault(layout_of(prompt.tokens, by_roles=True), []).append(i)
    return list(alike.values())


def _any(pairs: Bool[Tensor, "head pos key"]) -> Bool[Tensor, " pos"]:
    """Rows of any pair, in any head."""
    return pairs.any(0).any(-1)


def _at(member: Bool[Tensor, " pos"]) -> Int64[Tensor, " n"]:
    return member.nonzero().flatten()
