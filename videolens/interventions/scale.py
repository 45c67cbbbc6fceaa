"""Attention scaled up or down: some tokens look at some others more, or less, in some layers.

The unnormalised attention weight exp(score) of every (query in target, key in source) is multiplied by a factor before
the softmax normalises the row: log(factor) is added to its score. 0 is the knockout, 1 changes nothing, 2 doubles what
the keys weigh beside all others. Here it is a hook function on `blocks.{l}.attn.hook_gate`; fused kernels stay in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.blocked import blocked_each
from videolens.interventions.knockout import Knockout, MaskFunction
from videolens.interventions.layer_sets import layer_words
from videolens.interventions.on_edges import OnEdges, on_edges
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True)
class Scale(AsAttentionMask):
    """Attention of queries in `target` to keys in `source` weighs `factor` times as much, in these layers.

    Selections mean what they mean to a `Knockout`. Several at once, or with knockouts, combine: factors multiply, and
    what is cut stays cut.

    Attributes:
        source: selection the keys are in.
        target: selection the queries are in.
        layers: 0-based layers, at least one; kept sorted.
        factor: of the unnormalised attention weights; 0 is the knockout, 1 changes nothing.
        heads: 0-based heads, at least one; None: all.
        earlier_frames: only keys whose frame is earlier than the query's; with video on both sides: cross-frame.
        same_frame: only keys of the query's own frame.

    Raises:
        VideolensError: a factor that is negative, not finite or no number; no layer or no head, or one that is negative
            or no whole number.
    """

    source: str
    target: str
    layers: tuple[int, ...]
    factor: float
    heads: tuple[int, ...] | None = None
    earlier_frames: bool = False
    same_frame: bool = False

    def __init__(
        self,
        source: str,
        target: str,
        layers: Iterable[int] | int,
        factor: float | int,
        heads: Iterable[int] | int | None = None,
        *,
        earlier_frames: bool = False,
        same_frame: bool = False,
    ) -> None:
        edges = Knockout(source, target, layers, heads, earlier_frames=earlier_frames, same_frame=same_frame)
        if isinstance(factor, bool) or not isinstance(factor, Real) or not 0 <= factor < math.inf:
            raise VideolensError(
                f"the factor of a scaling is {factor!r}: give a finite number from 0 on; 0 cuts, 1 changes nothing, 2 "
                "doubles the weights"
            )
        vars(self).update(vars(edges), factor=float(factor))

    @classmethod
    def route(
        cls, name: str, *, layers: Iterable[int] | int, factor: float | int, heads: Iterable[int] | int | None = None
    ) -> Scale:
        """The scaling of a route by name, as in `Knockout.route`: "cross-frame", "video -> question", ….

        Raises:
            SelectionError: no such route; the message lists the known ones.
        """
        edges = Knockout.route(name, layers=layers, heads=heads)
        frames = {"earlier_frames": edges.earlier_frames, "same_frame": edges.same_frame}
        return cls(edges.source, edges.target, edges.layers, factor, edges.heads, **frames)

    @property
    def knockout(self) -> Knockout:
        """What cuts the edges that this scales."""
        frames = {"earlier_frames": self.earlier_frames, "same_frame": self.same_frame}
        return Knockout(self.source, self.target, self.layers, self.heads, **frames)

    @property
    def name(self) -> str:
        """What it does, in words, layers counted from 1."""
        words = (
            f"{self.source} → {self.target}{self.knockout.frame_words} × {self.factor:g}, {layer_words(self.layers)}"
        )
        return words if self.heads is None else f"{words}, heads {', '.join(map(str, self.heads))} (from 0)"

    def hooks(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`: one for the gates of every layer; of a factor 0
        those of the knockout, of a factor 1 none.

        Raises:
            SelectionError: a selection does not exist in this prompt, or nothing would be scaled.
        """
        cuts = self.knockout.hooks(prompt)
        if self.factor == 0:
            return cuts
        if self.factor == 1:
            return []
        each = [_Scaled(edges, self.heads, self.factor) for edges in blocked_each(self.knockout.what, prompt.tokens)]
        return [(f"blocks.{layer}.attn.hook_gate", on_edges([*each])) for layer in self.layers]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first query row) that it can change; None if it changes nothing."""
        return None if self.factor == 1 else self.knockout.cone(prompt)

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it names a layer or a head that a model of this size does not have."""
        self.knockout.check(n_layers=n_layers, n_heads=n_heads)


@dataclass(frozen=True)
class _Scaled(OnEdges):
    """The hook function of a scaling."""

    factor: float

    def change(
        self, value: Float[Tensor, "*any row key"], hit: Bool[Tensor, "row key"]
    ) -> Float[Tensor, "*any row key"]:
        """The gates with those of the pairs that are hit scaled."""
        return torch.where(hit, value * self.factor, value)
