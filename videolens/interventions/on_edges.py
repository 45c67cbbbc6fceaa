"""Hook functions that change something for some (query, key) pairs: what knockouts and scalings have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.blocked import Blocked
from videolens.interventions.numbering import check_within


@dataclass(frozen=True)
class OnEdges(ABC):
    """A function of a value [batch|1 head|1 query key], such as a mask. Equal ones do the same, whatever their layer.

    Attributes:
        blocked: the pairs whose value it changes.
        heads: 0-based heads; None: all.
    """

    blocked: Blocked
    heads: tuple[int, ...] | None

    @abstractmethod
    def change(
        self, value: Shaped[Tensor, "*any row key"], hit: Bool[Tensor, "row key"]
    ) -> Shaped[Tensor, "*any row key"]:
        """The new value of some rows; `hit`: the pairs that it changes."""

    def __call__(
        self, value: Shaped[Tensor, "batch head query key"], hook: Any
    ) -> Shaped[Tensor, "batch any_head query key"]:
        """The value with its pairs changed, for the rows and keys that `hook.ctx` names; it grows a head for each of
        the model's only if some heads are chosen."""
        rows, keys = hook.ctx["rows"], hook.ctx["keys"]
        if len(rows) != value.shape[-2] or len(keys) != value.shape[-1]:
            raise VideolensError(
                f"{hook.name} holds {value.shape[-2]} rows × {value.shape[-1]} keys, but hook.ctx names "
                f"{len(rows)} rows and {len(keys)} keys: the model must set both before it calls its hooks"
            )
        at = self.blocked.rows(rows)
        if len(at) == 0:
            return value
        hit = self.blocked.edges(rows[at], keys)
        if self.heads is None:
            value = value.clone()
            value[..., at, :] = self.change(value[..., at, :], hit)
            return value
        # only here does the value grow one layer of rows × keys per head
        n_heads = value.shape[1] if value.shape[1] > 1 else hook.ctx.get("n_heads")
        if n_heads is None:
            raise VideolensError(
                f"{hook.name} does not say in hook.ctx['n_heads'] how many heads there are to change some of"
            )
        check_within("head", self.heads, n_heads)
        value = value.expand(-1, n_heads, -1, -1).clone()
        for head in self.heads:
            value[:, head, at, :] = self.change(value[:, head, at, :], hit)
        return value


@dataclass(frozen=True)
class OnEachPrompt:
    """The function of a batch of unequal prompts: each has its own pairs."""

    functions: tuple[OnEdges, ...]

    @property
    def heads(self) -> tuple[int, ...] | None:
        """Of all of them."""
        return self.functions[0].heads

    def __call__(
        self, value: Shaped[Tensor, "batch head query key"], hook: Any
    ) -> Shaped[Tensor, "prompt any_head query key"]:
        """Every prompt's own function on its own value."""
        values = value.expand(len(self.functions), *value.shape[1:]).split(1)
        return torch.cat([function(one, hook) for function, one in zip(self.functions, values, strict=True)])


def on_edges(functions: list[OnEdges]) -> OnEdges | OnEachPrompt:
    """One hook function of those of a batch's prompts: the only one, where it is the same in all of them."""
    return functions[0] if len(functions) == 1 else OnEachPrompt(tuple(functions))
