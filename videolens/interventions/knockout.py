"""Attention knockout: some tokens may not look at some others, in some layers.

Map the Flow, section "Attention knockout": `source -> target` in a set of layers sets every attention score of
(query in target, key in source) to −∞ before the softmax. Everything else stays causal. Here it is a hook function on
`blocks.{l}.attn.hook_mask`, so that fused attention kernels stay in use and nothing is repeated per head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from videolens.errors import SelectionError, VideolensError, near
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.blocked import Cut, blocked, blocked_each
from videolens.interventions.numbering import check_within, some_numbers
from videolens.interventions.on_edges import OnEdges, on_edges
from videolens.notebook import Shown
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import is_by_role, is_selection
from videolens.prompt.tokens import TokenMap

ROUTES: tuple[str, ...] = (
    "cross-frame",
    "video -> question",
    "video -> last",
    "question -> last",
    "last -> last",
    "stem -> last",
    "true option -> last",
    "false options -> last",
    "video -> stem",
    "stem -> true option",
    "video -> true option",
)
"""The eleven routes of Map the Flow, `source -> target`: information flows from the keys to the queries."""

PART_ROUTES: tuple[str, ...] = ("cross-part", "part V -> part Q", "part Q -> part A", "part V -> part A")
"""Routes between the parts of a prompt, which leave no position out (`videolens.prompt.selections`): what a closed
pathway is chosen by. "cross-part": from the tokens of earlier frames, separators and timestamps included, to those of
later frames."""

OWN_PART = "own-part"
"""The route from every frame's tokens, separators and timestamps included, to those of the same frame."""

VIDEO_ROUTES: tuple[str, ...] = ("within-frame", "system -> video")
"""Two more routes into the video's tokens, which newer work cuts as well (arXiv 2508.15360): from a frame's tokens to
those of the same frame, each token's own key included; and from the text before the video."""

_BY_FRAME = {
    "cross-frame": ("video", "earlier_frames"),
    "within-frame": ("video", "same_frame"),
    "cross-part": ("part V", "earlier_frames"),
    OWN_PART: ("part V", "same_frame"),
}


def route_name(name: str) -> str:
    """A route as it stands in tables: "video -> last", however the arrow and the spaces were written."""
    if "->" not in str(name) and "→" not in str(name):
        return name
    return " -> ".join(" ".join(part.split()) for part in re.split("->|→", name))


MaskFunction = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class Knockout(Shown, AsAttentionMask):
    """Queries in `target` may not attend to keys in `source`, in these layers.

    "last" means the newest token at every step: in a prompt its final position, while decoding each generated token
    when it is computed. "response" are the generated tokens.

    Attributes:
        source: selection the keys are in: a `TokenMap` name, or several joined with " | ".
        target: selection the queries are in.
        layers: 0-based layers, at least one; kept sorted.
        heads: 0-based heads, at least one; None: all.
        earlier_frames: only keys whose frame is earlier than the query's; with video on both sides: cross-frame.
        same_frame: only keys of the query's own frame.

    Raises:
        VideolensError: no layer or no head, or one that is negative or no whole number; frames that are to be both
            earlier and the same.
    """

    source: str
    target: str
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    earlier_frames: bool = False
    same_frame: bool = False
    by_layout: ClassVar[bool] = True
    """Hook functions depend on what a prompt's positions are, and on nothing else of it."""

    def __init__(
        self,
        source: str,
        target: str,
        layers: Iterable[int] | int,
        heads: Iterable[int] | int | None = None,
        *,
        earlier_frames: bool = False,
        same_frame: bool = False,
    ) -> None:
        for name, selection in (("source", source), ("target", target)):
            if not isinstance(selection, str):
                raise SelectionError(
                    f"the {name} of a knockout is {selection!r:.80}: give a selection by name, such as 'video' or "
                    "'stem | last'; name positions of your own with spans=… of model.prompt_from_ids"
                )
        if earlier_frames and same_frame:
            raise VideolensError("no frame is both earlier than another and the same: pass one of the two, or neither")
        vars(self).update(
            source=source,
            target=target,
            layers=some_numbers("layer", layers),
            heads=None if heads is None else some_numbers("head", heads),
            earlier_frames=earlier_frames,
            same_frame=same_frame,
        )

    @property
    def by_roles(self) -> bool:
        """Whether it cuts the same in all prompts whose roles and frames are alike."""
        return is_by_role(self.source) and is_by_role(self.target)

    @property
    def frame_words(self) -> str:
        """Which frames' keys it removes, to be said after the target; nothing if all."""
        return " of later frames" if self.earlier_frames else " of the same frame" if self.same_frame else ""

    @property
    def what(self) -> Cut:
        """The edges it removes in each of its layers."""
        return Cut(self.source, self.target, self.earlier_frames, self.same_frame)

    @classmethod
    def route(cls, name: str, *, layers: Iterable[int] | int, heads: Iterable[int] | int | None = None) -> Knockout:
        """The knockout of a route by name: one of `ROUTES`, `VIDEO_ROUTES` or `PART_ROUTES`, "own-part", or any
        "source -> target" of selections.

        Spaces do not matter.

        Raises:
            SelectionError: neither; the message lists the known ones. (Whether a prompt has the selections is checked
                when there is a prompt.)
        """
        name = route_name(name)
        if name in _BY_FRAME:
            selection, which = _BY_FRAME[name]
            return cls(selection, selection, layers, heads, **{which: True})
        source, arrow, target = (part.strip() for part in str(name).partition(" -> "))
        if not arrow or not is_selection(source) or not is_selection(target):
            raise SelectionError(
                near(name, (*ROUTES, *VIDEO_ROUTES, *PART_ROUTES, OWN_PART), kind="route")
                + '; between other selections of a prompt: "source -> target"'
            )
        return cls(source, target, layers, heads)

    def hooks(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`: one for the mask of every layer.

        A function takes a mask `[batch|1 head|1 query key]`, True = may attend, and the hook point, whose
        `ctx["rows"]` and `ctx["keys"]` say which prompt positions the mask's rows and keys are.

        Raises:
            SelectionError: a selection does not exist in this prompt, or nothing would be cut.
        """
        if not any(each.cuts for each in blocked_each(self.what, prompt.tokens)):
            raise SelectionError(
                f"the knockout '{self.source} -> {self.target}'{self.frame_words} cuts nothing in this prompt: no "
                "query in the target can see a key in the source, for a token sees itself and what stands before it"
            )
        return self.functions(prompt)

    def functions(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """`hooks`, where cutting nothing is no mistake: for one of several knockouts that make up a pathway."""
        cuts = [_Cut(each, self.heads) for each in blocked_each(self.what, prompt.tokens)]
        cut = on_edges([*cuts])
        return [(f"blocks.{layer}.attn.hook_mask", cut) for layer in self.layers]

    def edges(self, prompt: Prompt) -> int:
        """Causal (query, key) pairs it removes, summed over its layers; counted once, however many heads it acts in."""
        return len(self.layers) * sum(int(part.sum()) for _, part in blocked(self.what, prompt.tokens).causal())

    def close(self, mask: Bool[Tensor, "query key"], tokens: TokenMap) -> None:
        """Close in a causal mask of the whole prompt, in place, the pairs it removes."""
        for rows, part in blocked(self.what, tokens).causal():
            mask[rows] &= ~part

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first query row) that it can change; None if it removes no edge.

        Attention is causal, so every row above and every layer before stay as they were.
        """
        first_row = blocked(self.what, prompt.tokens).first_row
        return None if first_row is None else (self.layers[0], first_row)

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it names a layer or a head that a model of this size does not have."""
        check_within("layer", self.layers, n_layers)
        check_within("head", self.heads or (), n_heads)


@dataclass(frozen=True)
class _Cut(OnEdges):
    """The hook function of a knockout. Knockouts that cut the same edges have equal ones, whatever their layers."""

    def change(self, value: Bool[Tensor, "*any row key"], hit: Bool[Tensor, "row key"]) -> Bool[Tensor, "*any row key"]:
        """The mask without the pairs that are hit."""
        return value & ~hit
