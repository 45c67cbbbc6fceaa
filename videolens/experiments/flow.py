"""Tracing flow: cut every route in every window of layers, and see how far the answer's probability falls.

Map the Flow, sections "Attention knockout" and "Relative change".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from videolens.engine import evaluate, last_logits
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.flowmap import COLUMNS, FlowMap, FlowSettings, Skip
from videolens.experiments.provenance import versions
from videolens.experiments.windows import check_window, default_window, window_layers
from videolens.interventions.knockout import ROUTES, Knockout
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
    max_batch: int = 16,
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
        max_batch: interventions run side by side.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        SelectionError: a route is unknown, or no question has it.
        VideolensError: no questions, a window that does not fit the model, or none left after choosing `samples`.
    """
    sweep = _Sweep(model, tuple(routes), _check(model, routes, window, samples), samples, max_batch)
    rows: list[tuple[Any, ...]] = []
    skipped: list[Skip] = []
    asked = 0
    total = len(questions) * sweep.n_windows if isinstance(questions, Sequence) else None
    with tqdm(
        total=total, desc="tracing flow", unit="window", delay=_QUIET_S, disable=not progress, leave=False
    ) as bar:
        for name, task, prompt in _named_prompts(model, questions):
            found, left_out = sweep.trace(prompt, name, task)
            rows += found
            skipped += left_out
            asked += 1
            bar.update(sweep.n_windows)
    _check_left(rows, skipped, routes, samples, asked)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"correct": "boolean"})
    settings = FlowSettings(
        model=str(getattr(model.cfg, "model_name", "") or ""),
        n_layers=model.cfg.n_layers,
        window=sweep.window,
        samples=samples,
        n_asked=asked,
        seed=seed,
        revision=getattr(model.cfg, "revision", None),
        dtype=str(model.cfg.dtype).removeprefix("torch."),
        device=str(model.cfg.device),
        versions=versions(),
        skipped=tuple(skipped),
    )
    return FlowMap(table, settings)


@dataclass(frozen=True)
class _Sweep:
    """Steps 1 to 4 of `trace_flow`, the same for every question."""

    model: HookedVideoTransformer
    routes: tuple[str, ...]
    window: int
    samples: Samples
    max_batch: int

    @property
    def n_windows(self) -> int:
        """Knockouts per question: one per route and layer."""
        return len(self.routes) * self.model.cfg.n_layers

    def trace(self, prompt: Prompt, name: str, task: str) -> tuple[list[tuple[Any, ...]], list[Skip]]:
        """Rows of the table for one question, and what was left out of it."""
        # 1. unblocked
        base = last_logits(self.model, prompt)
        answer = int(base.argmax())
        p_base = float(base.softmax(-1)[answer])
        correct = None if prompt.answer_token is None else answer == prompt.answer_token
        # 2. kept or not
        if self.samples != "all" and correct is not (self.samples == "correct"):
            reason = {None: "the right answer is not known", True: "answered rightly", False: "answered wrongly"}[
                correct
            ]
            return [], [Skip(name, task, None, reason)]
        # 3. every route, every window
        knockouts, kept, skipped = self._knockouts(prompt, name, task)
        blocked = evaluate(self.model, prompt, knockouts, max_batch=self.max_batch)
        p_knockout = blocked.softmax(-1)[:, answer].double()
        change = (p_knockout - p_base) / p_base * 100
        # 4. right option against the others
        difference = _logit_difference(blocked, prompt)
        base_difference = float(_logit_difference(base[None], prompt)[0])
        places = [(route, layer) for route in kept for layer in range(self.model.cfg.n_layers)]
        rows = [
            (
                name,
                task,
                route,
                layer,
                p_base,
                float(p_knockout[i]),
                float(change[i]),
                _word(self.model, answer),
                _word(self.model, int(blocked[i].argmax())),
                correct,
                base_difference,
                float(difference[i]),
            )
            for i, (route, layer) in enumerate(places)
        ]
        return rows, skipped

    def _knockouts(self, prompt: Prompt, name: str, task: str) -> tuple[list[Knockout], list[str], list[Skip]]:
        """Knockouts of every window of every route that the prompt has, those routes, and the other ones."""
        knockouts, kept, skipped = [], [], []
        n_layers = self.model.cfg.n_layers
        for route in self.routes:
            windows = [
                Knockout.route(route, layers=window_layers(layer, self.window, n_layers)) for layer in range(n_layers)
            ]
            try:
                windows[0].hooks(prompt)
            except SelectionError as error:
                skipped.append(Skip(name, task, route, str(error)))
                continue
            kept.append(route)
            knockouts += windows
        return knockouts, kept, skipped


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


def _word(model: HookedVideoTransformer, token: int) -> str:
    """A token as text; its id where the model has no tokenizer."""
    if model.tokenizer is None:
        return str(token)
    return str(model.tokenizer.decode([token])).strip() or str(token)


def _check(model: HookedVideoTransformer, routes: Sequence[str], window: int | None, samples: str) -> int:
    if isinstance(routes, str):
        raise VideolensError(f"routes is one string, {routes!r}: give a list of routes")
    if not routes or len(set(routes)) != len(routes):
        raise VideolensError(f"routes must name at least one route, each once, got {list(routes)}")
    for route in routes:
        Knockout.route(route, layers=())
    if samples not in ("correct", "wrong", "all"):
        raise VideolensError(near(samples, ("correct", "wrong", "all"), kind="choice of samples"))
    window = default_window(model.cfg.n_layers) if window is None else window
    check_window(window, model.cfg.n_layers)
    return int(window)


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
