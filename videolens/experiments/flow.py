"""Tracing flow: cut every route in every window of layers, and see how far the answer's probability falls.

Map the Flow, sections "Attention knockout" and "Relative change".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from videolens.engine import last_logits, sweep
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.contrast import token_text
from videolens.experiments.flowmap import COLUMNS, FlowMap, FlowSettings, Skip
from videolens.experiments.flowplan import check_routes, route_knockouts
from videolens.experiments.provenance import versions
from videolens.interventions.knockout import ROUTES
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt import Prompt
from videolens.question import Question

__all__ = ["trace_flow"]

Samples = Literal["correct", "wrong", "all"]

_QUIET_S = 2.0  # shorter work than this needs no progress bar


def trace_flow(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
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
    4. Where options and answer are known: logit of the right option minus the best of the others, before and after.

    A route that a prompt does not have (into the options of an open-ended question, say) is skipped for that question,
    and the map records it.

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        routes: names from `ROUTES`.
        window: layers blocked together; None: the odd number nearest 9/32 of the layers.
        samples: "correct": questions the model answers rightly; "wrong": the others, following the wrong answer's
            probability; "all": every question, whether or not its answer is known.
        seed: of the bootstrap that the map's intervals come from.
        engine: "exact": only what a knockout can change is computed, all windows side by side; "full": the published
            procedure, one forward of the whole prompt per route and window. The results are the same to rounding.
        max_memory: bytes that the exact engine may use besides the model; None: half of what is free.
        verify: run a sample of each question's knockouts in full as well, and compare.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        SelectionError: a route is unknown, or no question has it.
        VideolensError: no questions, a window that does not fit the model, none left after choosing `samples`, too
            little memory for one window, or (with `verify`) results that differ from plain forwards.
    """
    if samples not in ("correct", "wrong", "all"):
        raise VideolensError(near(samples, ("correct", "wrong", "all"), kind="choice of samples"))
    tracer = _Tracer(
        model, tuple(routes), check_routes(model, routes, window), samples, engine, max_memory=max_memory, verify=verify
    )
    began = time.monotonic()
    rows: list[tuple[Any, ...]] = []
    skipped: list[Skip] = []
    asked = 0
    total = len(questions) if isinstance(questions, Sequence) else None
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} questions [{elapsed}<{remaining}]"
    form = form if total else "{desc}: {n:.1f} questions [{elapsed}]"
    with tqdm(
        total=total, desc="tracing flow", bar_format=form, delay=_QUIET_S, disable=not progress, leave=False
    ) as bar:

        def tick(share: float) -> None:
            bar.n = min(bar.n + share, asked + 1)  # shares sum to one, but for rounding
            bar.update(0)

        for name, task, prompt in _named_prompts(model, questions):
            found, left_out = tracer.trace(prompt, name, task, tick)
            rows += found
            skipped += left_out
            asked += 1
            bar.n = asked
            bar.update(0)
    _check_left(rows, skipped, routes, samples, asked)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"correct": "boolean"})
    settings = FlowSettings(
        model=str(getattr(model.cfg, "model_name", "") or ""),
        n_layers=model.cfg.n_layers,
        window=tracer.window,
        samples=samples,
        n_asked=asked,
        seed=seed,
        revision=getattr(model.cfg, "revision", None),
        dtype=str(model.cfg.dtype).removeprefix("torch."),
        device=str(model.cfg.device),
        versions=versions(),
        skipped=tuple(skipped),
        engine=engine,
        forwards=tracer.mean_forwards,
        full_forwards=tracer.mean_full_forwards,
        seconds=time.monotonic() - began,
        verified=tracer.worst,
    )
    return FlowMap(table, settings)


@dataclass
class _Tracer:
    """Steps 1 to 4 of `trace_flow`, the same for every question, and what they have cost."""

    model: HookedVideoTransformer
    routes: tuple[str, ...]
    window: int
    samples: Samples
    engine: str
    max_memory: int | None
    verify: bool
    forwards: list[float] = field(default_factory=list)
    full_forwards: list[int] = field(default_factory=list)
    worst: float | None = None

    @property
    def mean_forwards(self) -> float | None:
        """Cost of a traced question in plain forwards."""
        return sum(self.forwards) / len(self.forwards) if self.forwards else None

    @property
    def mean_full_forwards(self) -> float | None:
        """What the published procedure costs for a traced question."""
        return sum(self.full_forwards) / len(self.full_forwards) if self.full_forwards else None

    def trace(
        self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]
    ) -> tuple[list[tuple[Any, ...]], list[Skip]]:
        """Rows of the table for one question, and what was left out of it."""
        # 1. unblocked
        base = last_logits(self.model, prompt)
        answer = int(base.argmax())
        correct = None if prompt.answer_token is None else answer == prompt.answer_token
        # 2. kept or not
        if self.samples != "all" and correct is not (self.samples == "correct"):
            reason = {None: "the right answer is not known", True: "answered rightly", False: "answered wrongly"}[
                correct
            ]
            return [], [Skip(name, task, None, reason)]
        # 3. every route, every window
        n_layers = self.model.cfg.n_layers
        knockouts, kept, missing = route_knockouts(prompt, self.routes, self.window, n_layers)
        skipped = [Skip(name, task, route, reason) for route, reason in missing.items()]
        if not kept:
            return [], skipped
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
        # 4. right option against the others
        difference = _logit_difference(blocked, prompt)
        base_difference = float(_logit_difference(base[None], prompt)[0])
        places = [(route, layer) for route in kept for layer in range(n_layers)]
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
                token_text(self.model, int(blocked[i].argmax())),
                correct,
                base_difference,
                float(difference[i]),
            )
            for i, (route, layer) in enumerate(places)
        ]
        return rows, skipped


def _named_prompts(
    model: HookedVideoTransformer, questions: Question | Prompt | Iterable[Question | Prompt]
) -> Iterator[tuple[str, str, Prompt]]:
    """(id, task, single prompt) one after the other: a prompt is made only when its turn comes."""
    seen: set[tuple[str, str]] = set()
    count = 0
    if not isinstance(questions, Iterable) or isinstance(questions, str):
        raise VideolensError(f"what is traced are Questions or Prompts, got {questions!r}")
    for item in [questions] if isinstance(questions, (Question, Prompt)) else questions:
        if not isinstance(item, (Question, Prompt)):
            raise VideolensError(f"what is traced are Questions or Prompts, got {item!r}")
        for prompt in model.prompt(item) if isinstance(item, Question) else item:
            question = prompt.question
            name = question.id if question is not None and question.id else f"prompt {count}"
            task = question.task if question is not None else ""
            if (task, name) in seen:
                raise VideolensError(
                    f"question {name!r} of task {task!r} is there twice: give every question its own id"
                )
            seen.add((task, name))
            count += 1
            yield name, task, prompt


def _logit_difference(logits: Float[Tensor, "row d_vocab"], prompt: Prompt) -> Float[Tensor, " row"]:
    """Logit of the right option minus the best of the others; NaN where that is not defined."""
    others = [token for token in prompt.option_tokens if token != prompt.answer_token]
    if prompt.answer_token is None or not others:
        return torch.full((len(logits),), torch.nan)
    return logits[:, prompt.answer_token] - logits[:, others].max(dim=-1).values


def _check_left(
    rows: Sequence[Any], skipped: Sequence[Skip], routes: Sequence[str], samples: str, n_asked: int
) -> None:
    if n_asked == 0:
        raise VideolensError("there are no questions to trace: give at least one Question or Prompt")
    if not rows:
        reasons = sorted({skip.reason for skip in skipped})
        raise VideolensError(
            f"none of the {n_asked} questions is left with samples={samples!r}: {'; '.join(reasons)}. "
            "samples='all' keeps every question"
        )
    if missing := [route for route in routes if not any(row[2] == route for row in rows)]:
        reasons = sorted({skip.reason for skip in skipped if skip.route in missing})
        raise SelectionError(f"no question has the routes {missing}: {'; '.join(reasons)}. Leave them out of routes=")
