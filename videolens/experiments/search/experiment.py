"""Finding the smallest pathway that keeps the answers: close what can be closed, ask again, judge on other questions.

Backward elimination, as automatic circuit discovery has it (Conmy et al. 2023), with two changes: a group of units is
tried at once and halved where it fails, and a test ends as soon as it is lost.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videolens.errors import VideolensError, check_flag, check_whole, is_number, near
from videolens.experiments.search.closing import close_all
from videolens.experiments.search.judging import Judge, check_alike
from videolens.experiments.search.keeping import Effort, Keeping
from videolens.experiments.search.memory import Answers
from videolens.experiments.search.orders import ORDERS, ordered
from videolens.experiments.search.result import ALL_CLOSED, SIZED, PathwaySearch
from videolens.experiments.search.table import tabulate
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.partition import Unit, check_grain
from videolens.interventions.route_pathway import RoutePathway, pathway_from
from videolens.model.transformer import HookedVideoTransformer
from videolens.progress import progress_bar
from videolens.prompt.prompt import Prompt

LEVELS = (0.99, 0.98, 0.95, 0.9, 0.8)
"""Shares of the answers that are to be kept, one after another: each gives a point of the curve."""
SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of the live edges at which faithfulness is measured (MIB, Mueller et al. 2025)."""


@dataclass(frozen=True)
class Found:
    """A pathway that the search has come to.

    Attributes:
        name: order and level, "attribution, 98 %".
        closed: its units.
        kept: share of the right answers that it keeps on the questions that it was searched on, with their margins.
        live_edges, flops: share of the whole, mean over these questions.
    """

    name: str
    closed: frozenset[Unit]
    kept: float
    live_edges: float
    flops: float


def find_pathway(
    model: HookedVideoTransformer,
    questions: Iterable[Any],
    held_out: Iterable[Any],
    *,
    keep_accuracy: float | int | None = None,
    live_edges: float | int | None = None,
    flops: float | int | None = None,
    orders: Sequence[str] = ORDERS,
    grain: str = "routes",
    heads: bool = False,
    slack: float | int = 0.1,
    compare: Mapping[str, CutRoutes] | None = None,
    draws: int = 3,
    resume: str | Path | None = None,
    seed: int = 0,
    max_memory: int | None = None,
    progress: bool = True,
) -> PathwaySearch:
    """Find the smallest set of open routes that keeps the answers, and judge it on questions that it was not found on.

    A unit is one of six routes in one layer (`SEARCHED` in `videolens.interventions.route_pathway`), or finer. A
    question is *kept* if its margin, the logit of the right option minus that of the best other, is at least `slack`
    times the median margin with nothing cut: a pathway that only just answers rightly would fail on the next ones.

    1. Order the units: by the magnitude of their attribution, the smallest first; from the last layer down; by chance.
    2. Close units in that order, in groups that are halved where too many questions are lost, all by exact runs. Go
       through the levels 99, 98, 95, 90, 80 %: of the questions that are answered rightly with nothing cut, so
       many must be kept.
    3. Of all pathways of all orders take the smallest that keeps enough, or the best that is small enough.
    4. Judge every one of them, and those of `compare`, on `held_out`; and the found order's pathways of 0.1 to 50 %
       of the live edges, for faithfulness.

    Args:
        model: the model.
        questions: multiple-choice questions with known answers to search on; 500 or more.
        held_out: others to judge on.
        keep_accuracy: share of the right answers to keep, between chance and 1. If nothing is asked for: 0.98.
        live_edges: or: at most this share of the live edges, above 0 and below 1.
        flops: or: at most this share of the operations.
        orders: from `ORDERS`; "random" more than once draws more than one.
        grain: "routes", or "frame pairs": what attention to and from single frames is closed apart.
        heads: every head by itself.
        slack: share of the median margin that a kept question must have.
        compare: other pathways to judge beside, by name.
        draws: random cuts that are judged beside the chosen pathway, as many along every route and in every layer, and
            beside them video tokens dropped by attention at its operations (`videolens.experiments.search.controls`);
            0: neither.
        resume: a file of the answers that the search has had so far: the same call goes on where it was.
        seed: of random orders, of attribution's sample and of the bootstrap.
        max_memory: bytes for the runs that are kept between tests (`videolens.experiments.search.keeping`); None: half
            of what is free. Fewer cost time and change nothing.
        progress: show a bar.

    Raises:
        QuestionError: a question without options or without a known answer.
        VideolensError: no questions, more than one request or one that makes no sense, a pathway of another depth, no
            pathway that is small enough.
        ModelError: a model with listeners of its own.
    """
    request = _request(keep_accuracy, live_edges, flops)
    _check(orders, slack, seed, progress)
    check_grain(grain)
    check_flag("heads", heads)
    check_whole("draws", draws)
    for each in (compare or {}).values():
        each.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
        check_alike(each)
    judge, other = (Judge(model, _prompts(model, each)) for each in (questions, held_out))
    _check_request(request, judge)
    keeping = Keeping(judge, float(slack), max_memory)
    answers = Answers(None if resume is None else Path(resume), judge, slack)
    drawn, levels = (
        random.Random(seed),
        {*LEVELS, *(level for what, level in request.items() if what == "keep_accuracy")},
    )
    found: list[Found] = []
    for order in orders:
        # 1.
        units, cost = ordered(judge, order, drawn, grain=grain, heads=heads, seed=seed)
        keeping.effort += Effort(operations=cost)
        # 2.
        found += search(keeping, units, order, answers, levels=levels, progress=progress)
    # 3.
    found = list({each.closed: each for each in reversed(found)}.values())[::-1]
    chosen = _choose(found, request)
    # 4.
    judged: dict[str, CutRoutes] = {each.name: _pathway(model, each.closed, each.name) for each in found}
    judged |= {name: _named(each, name) for name, each in (compare or {}).items()}
    judged |= _by_size(model, judge, _rank(found, chosen, units))
    settings = {"request": request, "slack": slack, "orders": tuple(orders), "grain": grain, "heads": heads}
    return tabulate(
        model, other, judged, chosen.name, draws, keeping.effort, judge.n, settings, seed=seed, progress=progress
    )


def search(
    keeping: Keeping,
    order: Sequence[Unit],
    name: str,
    answers: Answers,
    *,
    levels: Iterable[float] = LEVELS,
    progress: bool = False,
) -> Iterator[Found]:
    """Step 2: the pathways of one order, level by level: each closes more than the one before."""
    judge, closed, levels = keeping.judge, frozenset[Unit](), sorted(set(levels), reverse=True)
    with progress_bar(f"search, {name}", total=len(order) * len(levels), unit="units", digits=0, shown=progress) as bar:
        for i, level in enumerate(levels):
            most_lost = int((1 - level) * keeping.n + 1e-9)

            def accept(units: frozenset[Unit], most: int = most_lost) -> bool:
                return answers.of(keeping, units, _pathway(judge.model, units), most)

            for settled, now in close_all(order, closed, accept):
                closed = now
                bar.n = min(bar.total or 0, i * len(order) + settled)
                bar.update(0)
            live, flops = judge.sizes(_pathway(judge.model, closed))
            yield Found(f"{name}, {100 * level:g} %", closed, level, live, flops)


def _choose(found: Sequence[Found], request: Mapping[str, float]) -> Found:
    """Step 3."""
    [(what, value)] = request.items()
    if what == "keep_accuracy":
        return min((each for each in found if each.kept >= value - 1e-9), key=lambda each: each.live_edges)
    small = [each for each in found if getattr(each, what) <= value]
    if not small:
        least = min(getattr(each, what) for each in found)
        raise VideolensError(
            f"{what} = {value}: no pathway that keeps {100 * LEVELS[-1]:g} % of the answers is so small; the smallest "
            f"has {least:.3f}"
        )
    return max(small, key=lambda each: (each.kept, -each.live_edges))


def _by_size(model: HookedVideoTransformer, judge: Judge, rank: Sequence[Unit]) -> dict[str, CutRoutes]:
    """Pathways of given sizes: units are closed in one order until so much is left, and at last all of them."""
    made: dict[str, CutRoutes] = {}
    low = 0
    for size in sorted(SIZES, reverse=True):
        high = len(rank)
        while low < high:  # the fewest units that leave no more: closing more never leaves more
            middle = (low + high) // 2
            if judge.sizes(_pathway(model, frozenset(rank[:middle])))[0] <= size:
                high = middle
            else:
                low = middle + 1
        name = f"{100 * size:g} {SIZED}"
        if judge.sizes(_pathway(model, frozenset(rank[:low])))[0] <= size:
            made[name] = _pathway(model, frozenset(rank[:low]), name)
    return made | {ALL_CLOSED: _pathway(model, frozenset(rank), ALL_CLOSED)}


def _rank(found: Sequence[Found], chosen: Found, units: Sequence[Unit]) -> list[Unit]:
    """Units in the order in which the chosen pathway's search closed them; at the end those that it never closed, from
    the last layer down."""
    name = chosen.name.rpartition(", ")[0]
    rank: dict[Unit, None] = {}
    for each in sorted((one for one in found if one.name.startswith(f"{name}, ")), key=lambda one: -one.kept):
        rank |= dict.fromkeys(sorted(each.closed - rank.keys(), key=_place, reverse=True))
    return list(rank | dict.fromkeys(sorted(set(units) - rank.keys(), key=_place, reverse=True)))


def _place(unit: Unit) -> tuple[int, int, str]:
    return unit.layer, -1 if unit.head is None else unit.head, unit.route


def _pathway(model: HookedVideoTransformer, closed: frozenset[Unit], name: str = "routes") -> RoutePathway:
    return RoutePathway.of_units(model.cfg.n_layers, closed, n_heads=model.cfg.n_heads, name=name)


def _named(pathway: CutRoutes, name: str) -> CutRoutes:
    return pathway_from(pathway.to_dict() | {"name": name})


def _prompts(model: HookedVideoTransformer, questions: Iterable[Any]) -> list[Prompt]:
    found = [one if isinstance(one, Prompt) else model.prompt(one) for one in questions]
    if not found:
        raise VideolensError("there are no questions: give some to search on, and others to judge on")
    return found


def _request(
    keep_accuracy: float | int | None, live_edges: float | int | None, flops: float | int | None
) -> dict[str, float]:
    said = {"keep_accuracy": keep_accuracy, "live_edges": live_edges, "flops": flops}
    given = {name: value for name, value in said.items() if value is not None} or {"keep_accuracy": 0.98}
    if len(given) > 1:
        raise VideolensError(f"{' and '.join(given)} are given: ask for one of them, for one follows from the other")
    [(name, value)] = given.items()
    if not is_number(value) or (not 0 < value < 1 and not (name == "keep_accuracy" and value == 1)):
        raise VideolensError(f"{name} = {value!r}: give a share between 0 and 1")
    return {name: float(value)}


def _check_request(request: Mapping[str, float], judge: Judge) -> None:
    keep, right = request.get("keep_accuracy"), int((judge.full > 0).sum())
    if right < 2:
        raise VideolensError(f"the model answers {right} of {judge.n} questions rightly: there is nothing to keep")
    chance = sum(1 / len(prompt.option_tokens) for prompt in judge.prompts) / right
    if keep is not None and keep <= chance:
        raise VideolensError(
            f"keep_accuracy = {keep}: by chance alone {100 * min(chance, 1):.0f} % of the right answers stay; ask for "
            "more"
        )


def _check(orders: Sequence[str], slack: float | int, seed: int, progress: bool) -> None:
    if isinstance(orders, str) or not orders:
        raise VideolensError(f"orders is {orders!r}: give a list with some of {list(ORDERS)}")
    for order in orders:
        if order not in ORDERS:
            raise VideolensError(near(order, ORDERS, kind="order"))
    if not is_number(slack) or not 0 <= slack < 1:
        raise VideolensError(f"slack = {slack!r}: give a share of the median margin, from 0 on and below 1")
    check_whole("seed", seed)
    check_flag("progress", progress)
