"""Tracing flow: cut every route in every window of layers, and see how far the answer's probability falls.

Map the Flow, sections "Attention knockout" and "Relative change".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine import check_engine, last_logits, sweep
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.common.asking import Asked, Skip, ask_all
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.samples import check_samples, why_left_out
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS, check_routes, route_knockouts
from videolens.experiments.flow.result import COLUMNS, FlowMap, FlowSettings
from videolens.experiments.patch_map.contrast import token_text
from videolens.interventions.knockout import ROUTES
from videolens.interventions.layer_sets import cut_layers
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["INTO_FALSE_OPTIONS", "FlowExperiment", "FlowMap", "trace_flow"]

Samples = Literal["correct", "wrong", "all"]


def trace_flow(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
    style: str = "centre",
    samples: Samples = "correct",
    seed: int = 0,
    engine: str = "exact",
    max_memory: int | None = None,
    verify: bool = False,
    progress: bool = True,
) -> FlowMap:
    """Cut each route in a window of layers around each layer, and measure the change at the last position.

    1. Run the model unblocked. Its answer is the token it ranks first; p_base is that token's probability.
    2. Keep the question if `samples` says so; otherwise record why not.
    3. For every route and every layer, block the route in the window centred there; p_knockout is the probability of
       the same token, and the change is (p_knockout − p_base) / p_base × 100.
    4. Where the answer is known: whether the token ranked first is the right one, and the right one's probability,
       before and after; with options also its logit minus the best of the others.

    An open-ended question (`question.open_ended()`) is followed by the first token of its answer, and right if that is
    the first token of the right answer. Where another of its alternatives begins with the same token, that token does
    not tell them apart, and what is right counts as not known.

    A route that a prompt does not have (into the options of an open-ended question, say) is skipped for that question,
    and the map records it.

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        routes: names from `ROUTES`, or any other "source -> target" of selections, such as those of
            `INTO_FALSE_OPTIONS`.
        window: layers blocked together; None: the odd number nearest 9/32 of the layers.
        style: which layers are cut together, one of `STYLES`: "centre", a window around each layer; "inverse", all but
            that window; "top-down", each layer and all after it; "bottom-up", each layer and all before it; "first
            half", "second half", or "halves", the one and then the other. Only the first two have a window.
        samples: "correct": questions the model answers rightly; "wrong": the others, following the wrong answer's
            probability; "all": every question, whether or not its answer is known.
        seed: of the bootstrap that the map's intervals come from.
        engine: "exact": only what a knockout can change is computed, all windows side by side; "full": the published
            procedure, one forward of the whole prompt per route and window. The results are the same to rounding.
        max_memory: bytes that the exact engine may use besides the model; None: half of what is free.
        verify: run a sample of each question's knockouts in full as well, and compare.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        SelectionError: a route is unknown, or `routes` was given and no question has one of them.
        VideolensError: no questions, a window that does not fit the model, none left after choosing `samples`, too
            little memory for one window, or (with `verify`) results that differ from plain forwards.
    """
    experiment = FlowExperiment(
        model,
        routes=routes,
        window=window,
        style=style,
        samples=samples,
        seed=seed,
        engine=engine,
        max_memory=max_memory,
        verify=verify,
    )
    return ask_all(experiment, questions, progress=progress)


class FlowExperiment:
    """Steps 1 to 4 of `trace_flow`, the same for every question, and what they have cost.

    The arguments are those of `trace_flow`.

    Raises:
        SelectionError: a route is unknown.
        VideolensError: a choice of samples that does not exist, a window that does not fit the model.
    """

    name = "flow"
    columns = COLUMNS
    dtypes: ClassVar[dict[str, str]] = {"correct": "boolean", "correct_knockout": "boolean"}

    def __init__(
        self,
        model: HookedVideoTransformer,
        *,
        routes: Sequence[str] = ROUTES,
        window: int | None = None,
        style: str = "centre",
        samples: Samples = "correct",
        seed: int = 0,
        engine: str = "exact",
        max_memory: int | None = None,
        verify: bool = False,
    ) -> None:
        check_samples(samples)
        check_engine(engine)
        self.model = model
        self.window, self.style = check_routes(model, routes, window, style), style
        self.routes = tuple(routes)
        self.samples, self.seed = samples, seed
        self.engine, self.max_memory, self.verify = engine, max_memory, verify
        self.forwards: list[float] = []
        self.full_forwards: list[int] = []
        self.worst: float | None = None

    def ask(self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        # 1. unblocked
        base = last_logits(self.model, prompt)
        answer, right = int(base.argmax()), _right_token(prompt)
        correct = None if right is None else answer == right
        # 2. kept or not
        if reason := why_left_out(self.samples, correct):
            return Asked([], [Skip(name, task, None, reason if correct is not None else _why_unknown(prompt))])
        # 3. every route, every window
        n_layers = self.model.cfg.n_layers
        knockouts, kept, missing = route_knockouts(prompt, self.routes, self.window, n_layers, style=self.style)
        skipped = [Skip(name, task, route, reason) for route, reason in missing.items()]
        if not kept:
            return Asked([], skipped)
        found = sweep(
            self.model,
            prompt,
            knockouts,
            engine=self.engine,
            max_memory=self.max_memory,
            verify=self.verify,
            tick=tick,
        )
        self.full_forwards.append(len(knockouts) + 1)
        self.forwards.append(float(len(knockouts) + 1) if found.plan is None else found.plan.forwards)
        if found.verified is not None:
            self.worst = max(self.worst or 0.0, found.verified)
        base, blocked = found.base, found.logits
        p_base = float(base.softmax(-1)[answer])
        p_knockout = blocked.softmax(-1)[:, answer].double()
        change = (p_knockout - p_base) / p_base * 100
        # 4. what is right, before and after
        best = blocked.argmax(-1).tolist()
        p_right = [float("nan")] * (len(blocked) + 1)
        if right is not None:
            p_right = [float(base.softmax(-1)[right]), *blocked.softmax(-1)[:, right].double().tolist()]
        difference = _logit_difference(blocked, prompt, right).tolist()
        base_difference = float(_logit_difference(base[None], prompt, right)[0])
        layers = cut_layers(self.style, self.window, n_layers)
        places = [(route, layer) for route in kept for layer in layers]
        rows = [
            (
                name,
                task,
                route,
                layer,
                p_base,
                float(p_knockout[i]),
                float(change[i]),
                token_text(self.model, answer),
                token_text(self.model, best[i]),
                correct,
                None if right is None else best[i] == right,
                p_right[0],
                p_right[1 + i],
                base_difference,
                difference[i],
            )
            for i, (route, layer) in enumerate(places)
        ]
        return Asked(rows, skipped)

    def result(self, table: pd.DataFrame, skipped: Sequence[Skip], n_asked: int, seconds: float | None) -> FlowMap:
        """The flow map of all questions."""
        _check_left(table, skipped, self.routes, self.samples, n_asked)
        cfg = self.model.cfg
        settings = FlowSettings(
            **made_with(self.model),
            n_layers=cfg.n_layers,
            window=self.window,
            style=self.style,
            samples=self.samples,
            n_asked=n_asked,
            seed=self.seed,
            skipped=tuple(skipped),
            engine=self.engine,
            forwards=_mean(self.forwards),
            full_forwards=_mean(self.full_forwards),
            seconds=seconds,
            verified=self.worst,
        )
        return FlowMap(table, settings)


def _right_token(prompt: Prompt) -> int | None:
    """The token that is right; None where it is not known, or begins another of the answers to choose from, too."""
    alike = [token for token in prompt.option_tokens if token == prompt.answer_token]
    return None if len(alike) > 1 else prompt.answer_token


def _why_unknown(prompt: Prompt) -> str:
    if prompt.answer_token is None:
        return "the right answer is not known"
    return "another of its answers begins with the right one's token"


def _logit_difference(logits: Float[Tensor, "row d_vocab"], prompt: Prompt, right: int | None) -> Float[Tensor, " row"]:
    """Logit of the right option minus the best of the others; NaN where that is not defined."""
    others = [token for token in prompt.option_tokens if token != right]
    if right is None or not others:
        return torch.full((len(logits),), torch.nan)
    return logits[:, right] - logits[:, others].max(dim=-1).values


def _mean(numbers: Sequence[float | int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _check_left(
    table: pd.DataFrame, skipped: Sequence[Skip], routes: Sequence[str], samples: str, n_asked: int
) -> None:
    if not len(table) and all(skip.route is None for skip in skipped):
        reasons = sorted({skip.reason for skip in skipped})
        raise VideolensError(
            f"none of the {n_asked} questions is left with samples={samples!r}: {'; '.join(reasons)}. "
            "samples='all' keeps every question"
        )
    # the paper's eleven are asked for as they are there; a route that was named is expected
    missing = sorted(set(routes) - set(table["route"]))
    if missing and (tuple(routes) != ROUTES or not len(table)):
        reasons = sorted({skip.reason for skip in skipped if skip.route in missing})
        raise SelectionError(f"no question has the routes {missing}: {'; '.join(reasons)}. Leave them out of routes=")
