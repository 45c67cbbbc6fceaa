"""Tracing flow: cut every route in every window of layers, and see how far the answer's probability falls.

Map the Flow, sections "Attention knockout" and "Relative change".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine import Sweep, base, check_engine, sweep
from videolens.engine.foreseeing import Foreseen, Machine, foresee
from videolens.errors import SelectionError, check_flag
from videolens.experiments.common.asking import ask_all, why_left_out
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Skip, Tick, check_samples
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.words import token_text
from videolens.experiments.flow.changes import changes_of, noise_of
from videolens.experiments.flow.plan import check_routes, route_knockouts
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.table import FlowRow, FlowSettings
from videolens.interventions.knockout import ROUTES, route_name
from videolens.interventions.layer_sets import cut_layers
from videolens.interventions.rerounded import HALF, Rerounded
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

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
    5. In bfloat16 and float16: the deepest knockout of every route once more with its numbers rounded elsewhere
       (`Rerounded`). By how much its change differs is the map's noise (`FlowMap.noise_floor`).

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


@dataclass
class FlowExperiment(Experiment[FlowMap]):
    """Steps 1 to 5 of `trace_flow`, the same for every question. The arguments are those of `trace_flow`.

    Raises:
        SelectionError: a route is unknown.
        VideolensError: a choice of samples that does not exist, a window that does not fit the model.
    """

    name: ClassVar[str] = "flow"
    row = FlowRow
    dtypes: ClassVar[dict[str, str]] = {"correct": "boolean", "correct_knockout": "boolean"}

    model: HookedVideoTransformer
    _: KW_ONLY
    routes: Sequence[str] = ROUTES
    window: int | None = None
    style: str = "centre"
    samples: Samples = "correct"
    seed: int = 0
    engine: str = "exact"
    max_memory: int | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        check_samples(self.samples)
        check_engine(self.engine)
        check_flag("verify", self.verify)
        self.window = check_routes(self.model, self.routes, self.window, self.style)
        self.routes = tuple(map(route_name, self.routes))

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        # 1. unblocked
        unblocked = base(self.model, prompt, engine=self.engine, max_memory=self.max_memory)
        answer, right = int(self.model.chosen(unblocked.logits)), _right_token(prompt)
        correct = None if right is None else answer == right
        # 2. kept or not
        if reason := why_left_out(self.samples, correct):
            reason = reason if correct is not None else _why_unknown(prompt)
            return Asked(skipped=[Skip(name, task, None, reason)])
        # 3. every route, every window
        n_layers = self.model.cfg.n_layers
        knockouts, kept, missing = route_knockouts(prompt, self.routes, self.window, n_layers, style=self.style)
        skipped = [Skip(name, task, route, reason) for route, reason in missing.items()]
        if not kept:
            return Asked(skipped=skipped)
        found = sweep(
            self.model,
            prompt,
            knockouts,
            engine=self.engine,
            max_memory=self.max_memory,
            verify=self.verify,
            tick=tick,
            base=unblocked,
        )
        # 4. what is right, before and after
        layers = cut_layers(self.style, self.window, n_layers)
        places = [(route, layer) for route in kept for layer in layers]
        rows = self._rows(prompt, (name, task), places, found, answer)
        # 5. how much of it is rounding
        cost = Cost.of(found, before=1.0)
        if self.model.cfg.dtype in HALF:
            noise, more = noise_of(
                self.model,
                prompt,
                knockouts,
                [row.change_percent for row in rows],
                answer,
                of_route=len(layers),
                unblocked=unblocked,
                engine=self.engine,
                max_memory=self.max_memory,
            )
            cost = replace(cost, forwards=cost.forwards + more, noise=noise)
        return Asked(rows, skipped, cost)

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """The run with nothing changed, the knockouts, and in half precision one of each route again, the dearest."""
        n_layers = self.model.cfg.n_layers
        knockouts, kept, _ = route_knockouts(prompt, self.routes, self.window, n_layers, style=self.style)
        if not kept:
            return Foreseen.plain(1)
        how: dict[str, Any] = {"engine": self.engine, "max_memory": self.max_memory, "machine": machine}
        found = foresee(self.model, prompt, knockouts, with_base=True, **how)
        if self.model.cfg.dtype not in HALF:
            return found
        again = [Rerounded(knockouts[i]) for i in range(0, len(knockouts), len(knockouts) // len(kept))]
        more = foresee(self.model, prompt, again, with_base=True, **how).forwards - 1
        return replace(found, forwards=found.forwards + more)

    def _rows(
        self, prompt: Prompt, who: tuple[str, str], places: Sequence[tuple[str, int]], found: Sweep, answer: int
    ) -> list[FlowRow]:
        """One row per knockout, in the order of its (route, layer)."""
        right = _right_token(prompt)
        clean, blocked = found.base.softmax(-1), found.logits.softmax(-1)
        p_base, p_knockout, changes = changes_of(found, answer)
        change = changes.tolist()
        best = found.logits.argmax(-1).tolist()
        p_right = [torch.nan] * len(best) if right is None else blocked[:, right].double().tolist()
        difference = _logit_difference(found.logits, prompt, right).tolist()
        return [
            FlowRow(
                *who,
                route,
                layer,
                p_base=p_base,
                p_knockout=float(p_knockout[i]),
                change_percent=change[i],
                answer=token_text(self.model, answer),
                answer_knockout=token_text(self.model, best[i]),
                correct=None if right is None else answer == right,
                correct_knockout=None if right is None else best[i] == right,
                p_correct_base=torch.nan if right is None else float(clean[right]),
                p_correct_knockout=p_right[i],
                logit_diff_base=float(_logit_difference(found.base[None], prompt, right)[0]),
                logit_diff_knockout=difference[i],
            )
            for i, (route, layer) in enumerate(places)
        ]

    def result(self, gathered: Gathered) -> FlowMap:
        """The flow map of all questions."""
        if all(skip.route is None for skip in gathered.skipped):
            gathered.check_left(self.samples, hint=". samples='all' keeps every question")
        self._check_routes_left(gathered)
        settings = FlowSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            window=self.window,
            style=self.style,
            samples=self.samples,
            seed=self.seed,
            engine=self.engine,
        )
        return FlowMap(gathered.table, settings)

    def _check_routes_left(self, gathered: Gathered) -> None:
        """The paper's eleven routes are asked for as they are there; a route that was named is expected."""
        missing = sorted(set(self.routes) - set(gathered.table["route"]))
        if missing and (self.routes != ROUTES or not len(gathered.table)):
            reasons = "; ".join(sorted({skip.reason for skip in gathered.skipped if skip.route in missing}))
            raise SelectionError(f"no question has the routes {missing}: {reasons}. Leave them out of routes=")


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
