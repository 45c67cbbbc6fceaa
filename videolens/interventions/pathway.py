"""Pathways: the attention that stays open, layer by layer, when everything else is cut.

Map the Flow, section "Effective pathways": cross-frame attention, video → question and question → last are open in some
ranges of layers and closed in the others. Two readings of that:

- *published*: the paper's masks. They name video, question and last token, and leave open what has no name: the glue
  and the suffix read the video in every layer and are read in turn, so information leaks around the pathway.
- *closed*: the same idea over the four parts of a prompt (`videolens.prompt.selections`), which leave no position out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, cast

from jaxtyping import Bool
from torch import Tensor

from videolens.errors import VideolensError, near
from videolens.interventions.edges import Allowed, OpenEdges, causal_mask, check_parts
from videolens.interventions.knockout import Knockout, MaskFunction
from videolens.interventions.numbering import check_within, whole_numbers
from videolens.interventions.presets import PRESETS
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap

Layers = Iterable[int]

PUBLISHED_ROUTES = ("cross-frame", "video -> question", "question -> last")
CLOSED_ROUTES = ("cross-part", "part V -> part Q", "part Q -> part A")
"""The routes whose flow maps say which layers are open: cross-frame, video → question, question → last."""

_OPEN = ("cross_frame", "video_to_question", "question_to_last")


@dataclass(frozen=True)
class Pathway(OpenEdges):
    """Which routes are open in which 0-based layers. An intervention: it cuts all the rest.

    Attributes:
        n_layers: depth of the model it is for.
        cross_frame: layers in which a frame may look at earlier frames.
        video_to_question: layers in which the question may look at the video.
        question_to_last: layers in which the last token may look at the question.
        masks: "closed" or "published": see the module's text.
        name: what to call it in tables.

    Raises:
        VideolensError: a layer that a model of this depth does not have, masks of an unknown kind, no depth, or a value
            of the wrong kind.
    """

    n_layers: int
    cross_frame: tuple[int, ...]
    video_to_question: tuple[int, ...]
    question_to_last: tuple[int, ...]
    masks: str = "closed"
    name: str = "pathway"
    by_layout: ClassVar[bool] = True  # as of the knockouts that it is made of

    def __init__(
        self,
        n_layers: int,
        cross_frame: Layers = (),
        video_to_question: Layers = (),
        question_to_last: Layers = (),
        *,
        masks: str = "closed",
        name: str | None = None,
    ) -> None:
        if masks not in ("closed", "published"):
            raise VideolensError(near(masks, ("closed", "published"), kind="masks of a pathway"))
        if not isinstance(n_layers, int) or isinstance(n_layers, bool) or n_layers < 1:
            raise VideolensError(f"n_layers of a pathway is {n_layers!r}: say how deep the model is, such as 32")
        if name is not None and not isinstance(name, str):
            raise VideolensError(f"the name of a pathway is {name!r}: give text, or leave it out")
        chosen = [whole_numbers("layer", layers) for layers in (cross_frame, video_to_question, question_to_last)]
        for layers in chosen:
            check_within("layer", layers, n_layers)
        vars(self).update(zip(_OPEN, chosen, strict=True))
        vars(self).update(n_layers=n_layers, masks=masks, name=masks if name is None else name)

    # -- ways to choose one --------------------------------------------------------------------------------------------

    @classmethod
    def published(
        cls,
        preset: str | None = None,
        *,
        n_layers: int | None = None,
        cross_frame: Layers = (),
        video_to_question: Layers = (),
        question_to_last: Layers = (),
    ) -> Pathway:
        """The paper's masks, with the ranges of one of its models (table E(a)), or with ranges of one's own.

        Raises:
            VideolensError: neither preset nor depth, an unknown preset (the message lists the known ones), or ranges
                beside a preset, which has its own.
        """
        if preset is None:
            if n_layers is None:
                raise VideolensError(
                    f"give a preset ({', '.join(map(repr, PRESETS))}), or n_layers= and the layers that are open"
                )
            return cls(n_layers, cross_frame, video_to_question, question_to_last, masks="published")
        ranges = [whole_numbers("layer", layers) for layers in (cross_frame, video_to_question, question_to_last)]
        if any(ranges):
            raise VideolensError(f"{preset!r} has its own ranges, but {ranges} are given too: leave out one of the two")
        known = str(preset).rsplit("/", 1)[-1]
        if known not in PRESETS:
            raise VideolensError(near(preset, PRESETS, kind="preset"))
        if n_layers not in (None, PRESETS[known].n_layers):
            raise VideolensError(f"{known} has {PRESETS[known].n_layers} layers, not {n_layers}: leave n_layers out")
        return cls(masks="published", name=known, **PRESETS[known].ranges())

    @classmethod
    def closed(
        cls, *, n_layers: int, cross_frame: Layers = (), video_to_question: Layers = (), question_to_last: Layers = ()
    ) -> Pathway:
        """The leak-free masks. Every position is in one of the parts P, V, Q, A; besides causality, in layer l:

        1. keys in P are open to all;
        2. a frame's own tokens are open to it up to the last video → question layer (after which nobody reads V);
        3. earlier frames are open to a frame iff `cross_frame` has l, up to the same layer;
        4. V is open to Q iff `video_to_question` has l; Q to itself up to the last question → last layer;
        5. V is never open to A; Q is iff `question_to_last` has l; A is open to itself.
        """
        return cls(n_layers, cross_frame, video_to_question, question_to_last)

    @classmethod
    def from_flow(
        cls,
        flow: Any,
        *,
        threshold: float | int = -5,
        bin: int | None = None,
        task: str | None = None,
        each_task: bool = False,
        measure: str = "answer",
        masks: str | None = None,
    ) -> Pathway:
        """The paper's rule: a bin of layers is open if the mean relative change of the windows in it is below −5 %.

        1. Bins of `bin` neighbouring layers; the last one takes what is left.
        2. Per route and bin: mean of the relative change over questions and the windows centred in the bin.
        3. Below the threshold: the route is open in all layers of the bin.

        Args:
            flow: a `FlowMap` with the three routes `CLOSED_ROUTES` or `PUBLISHED_ROUTES`.
            threshold: in percent.
            bin: layers in a bin; None: 5/32 of them, the paper's 5 at 32 layers.
            task: choose by one task's questions (the paper: action antonym); None: by all together.
            each_task: choose by every task's questions apart, and open what any of them needs: a mean over all tasks
                hides what only one of them uses.
            measure: of the change, in percent. "answer", the paper's: relative change of the answer's probability.
                Where that is near 1, cutting one of several ways leaves it there; "logit difference, relative" does
                not saturate.
            masks: None: "closed" if the flow map has the routes for it.

        Raises:
            VideolensError: no flow map, one that lacks a route, or whose windows are not those around each layer.
        """
        if not callable(getattr(flow, "open_layers", None)):
            raise VideolensError(f"a pathway is chosen by a FlowMap, as trace_flow gives it, got {flow!r}")
        if (style := getattr(flow.settings, "style", "centre")) != "centre":
            raise VideolensError(f"a pathway is chosen by windows around each layer, this map was traced {style!r}")
        masks = ("closed" if set(CLOSED_ROUTES) <= set(flow.routes) else "published") if masks is None else masks
        routes = CLOSED_ROUTES if masks == "closed" else PUBLISHED_ROUTES
        if missing := [route for route in routes if route not in flow.routes]:
            raise VideolensError(
                f"a {masks} pathway is chosen by the routes {list(routes)}, but the map lacks {missing}: "
                f"trace_flow(…, routes={list(routes)})"
            )
        # 1. to 3.
        groups = flow.tasks if each_task and task is None else [task]
        opened = [
            flow.open_layers(route, threshold=threshold, bin=bin, groups=groups, measure=measure) for route in routes
        ]
        return cls(flow.settings.n_layers, *opened, masks=masks, name=f"{masks}, by flow")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Pathway:
        """A pathway from plain data, as `to_dict` gives it or a configuration file says it; `{"preset": name}` too.

        Raises:
            VideolensError: an unknown field, no depth, a value of the wrong kind, or more than a preset beside it.
        """
        known = ("n_layers", *_OPEN, "masks", "name", "preset")
        if not isinstance(fields, Mapping):
            raise VideolensError(f"a pathway is a mapping with the fields {', '.join(known)}, got {fields!r}")
        for field in fields:
            if field not in known:
                raise VideolensError(near(field, known, kind="field of a pathway"))
        if fields.get("preset") is not None:
            if more := sorted(fields.keys() - {"preset", "n_layers"}):
                raise VideolensError(f"a preset says all of a pathway: leave out {', '.join(more)}, or the preset")
            return cls.published(**cast(Any, fields))
        if "n_layers" not in fields:
            raise VideolensError(f"the pathway {dict(fields)!r} does not say n_layers: how deep the model is")
        return cls(**cast(Any, {name: value for name, value in fields.items() if name != "preset"}))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    # -- an intervention -----------------------------------------------------------------------------------------------

    @cached_property
    def knockouts(self) -> tuple[Knockout, ...]:
        """What it cuts, as knockouts."""
        every = range(self.n_layers)
        after_video, after_question = (
            every[max(chosen, default=-1) + 1 :] for chosen in (self.video_to_question, self.question_to_last)
        )
        not_cross, not_video, not_question = (
            [layer for layer in every if layer not in getattr(self, chosen)] for chosen in _OPEN
        )
        found: list[tuple[str, Sequence[int]]]
        if self.masks == "published":
            found = [
                ("cross-frame", not_cross),
                ("video -> question", not_video),
                ("question -> last", not_question),
                ("video -> last", every),
                ("last -> last", every),
                ("video -> video", after_video),
                ("question -> question", after_question),
            ]
        else:
            found = [
                ("cross-part", not_cross),
                ("part V -> part V", after_video),
                ("part V -> part Q", not_video),
                ("part Q -> part Q", after_question),
                ("part V -> part A", every),
                ("part Q -> part A", not_question),
            ]
        return tuple(Knockout.route(route, layers=layers) for route, layers in found if layers)

    def hooks(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`.

        Raises:
            SelectionError: a prompt without a question, or (closed masks) without a video before it.
        """
        if self.masks == "closed":
            check_parts(prompt.tokens)
        return [pair for knockout in self.knockouts for pair in knockout.functions(prompt)]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first query row) that it can change; None if it cuts nothing."""
        cones = [cone for knockout in self.knockouts if (cone := knockout.cone(prompt)) is not None]
        return (min(layer for layer, _ in cones), min(row for _, row in cones)) if cones else None

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it is for a model of another depth."""
        if n_layers != self.n_layers:
            raise VideolensError(
                f"the pathway {self.name!r} is for {self.n_layers} layers, the model has {n_layers}: choose one for "
                "this model, by Pathway.from_flow or with ranges to its scale"
            )

    # -- edges ---------------------------------------------------------------------------------------------------------

    def allowed(self, prompt: Prompt | TokenMap, layer: int) -> Bool[Tensor, "query key"]:
        """Causal pairs that are open in a 0-based layer."""
        tokens = prompt if isinstance(prompt, TokenMap) else prompt.tokens
        mask = causal_mask(tokens.n_pos)
        for knockout in self.knockouts:
            if layer in knockout.layers:
                knockout.close(mask, tokens)
        return mask

    def _each(self, prompt: Prompt | TokenMap) -> Allowed:
        # layers that the same knockouts cut are worked out once: a layer of a long prompt takes seconds
        first: dict[tuple[bool, ...], int] = {}
        cut_by = [tuple(layer in knockout.layers for knockout in self.knockouts) for layer in range(self.n_layers)]
        alike = [first.setdefault(kind, layer) for layer, kind in enumerate(cut_by)]
        once = cache(lambda layer: self.allowed(prompt, layer))
        return lambda layer: once(alike[layer])
