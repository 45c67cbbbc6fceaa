"""Do the paper's claims hold in this model? Verdicts computed from intervals, and a sentence for each.

Map the Flow, claims 1 to 3: temporal reasoning starts with attention between frames, in early-to-middle layers, and a
model without video tuning lacks it; the video then reaches the question, and the question the last token, hardly
anything directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from videolens.errors import VideolensError
from videolens.experiments.claims.result import MARGIN, Claims, Finding, judge, judge_difference
from videolens.experiments.common.statistics import Interval, bootstrap, centre
from videolens.experiments.flow.result import FlowMap
from videolens.interventions.layer_sets import STYLES

CROSS, INTO, OUT, DIRECT = "cross-frame", "video -> question", "question -> last", "video -> last"
STEM_HOP, OPTION_HOP = "stem -> true option", "video -> true option"
READ_TRUE, READ_FALSE = "true option -> last", "false options -> last"
NEEDED = (CROSS, INTO, OUT, DIRECT, STEM_HOP, OPTION_HOP, READ_TRUE, READ_FALSE)

DIRECT_TASKS = ("action antonym", "action sequence", "scene transition")
STEM_TASKS = ("moving direction", "object count")

FAIR = "correct option"
"""The measure of what compares the models: see `check_claims`, step 2."""

Curves = Float[np.ndarray, "question layer"]


def check_claims(tuned: FlowMap, base: FlowMap | None = None, *, margin: float = MARGIN) -> Claims:
    """Judge claims 1 to 3 by a flow map of a video-tuned model and one of its image-only base.

    1. The *effect* of a route is the mean relative change in the window where it is deepest, in percent. The layer it
       *centres* on is the mean layer, weighted by how far the mean change falls below zero.
    2. The base, and what compares it with the tuned model, is judged by the probability of the *right option*, in
       points. Where a model guesses, the token that it ranks first was picked for being the highest of near equals:
       whatever is done to the model tends to lower it, and that fall is no sign of information. The right option was
       not picked so.
    3. Every interval is a 95 % bootstrap over questions; of an effect, with the window chosen once. Where two routes
       or two models are compared, the same questions are drawn for both, the deepest windows are found anew in every
       draw, and the interval is that of the difference.
    4. A statement holds if its interval lies wholly on the side that it names, does not hold if it lies wholly on the
       other, and cannot be told otherwise. There is an effect if the interval lies below −`margin`, and none if it
       lies within ±`margin`: an interval that merely includes zero is not evidence of nothing. A difference counts
       from `margin` on. Where there is no effect, its centre cannot be told.
    5. Early, middle and late are thirds of the model's depth.
    6. A claim holds if all its statements do, does not hold if one does not, and cannot be told otherwise.

    Args:
        tuned: of the video-tuned model, with at least the routes of `NEEDED`.
        base: of the image-only base on the same questions, traced with `samples="all"`; None: what compares the two
            cannot be told.
        margin: what counts as no effect, and as no difference, in percent or points.

    Raises:
        VideolensError: a route is missing, the windows are of another style, or the two maps share no question.
    """
    for flow in [tuned] if base is None else [tuned, base]:
        if missing := [route for route in NEEDED if route not in flow.routes]:
            raise VideolensError(f"the claims need the routes {missing}, which {flow!r} has not traced")
        if flow.settings.style != "centre":
            raise VideolensError(
                f"the claims are about windows around each layer (style 'centre'), and {flow!r} cuts "
                f"{STYLES[flow.settings.style]}: trace it with the default style"
            )
    findings = [*_first(tuned, base, margin), *_second(tuned, margin), *_third(tuned, margin)]
    return Claims(
        findings=tuple(findings),
        tuned=tuned.settings.model,
        base=None if base is None else base.settings.model,
        n_layers=tuned.settings.n_layers,
        window=tuned.settings.window or 0,
        margin=margin,
    )


def _first(tuned: FlowMap, base: FlowMap | None, margin: float) -> list[Finding]:
    """Attention between frames, early to middle; the base has none of it."""
    found = [
        _effect("1", tuned, CROSS, "cutting attention between frames lowers the answer's probability", margin),
        _centre(
            "1", tuned, CROSS, "the effect centres on the early-to-middle layers (first two thirds)", margin, high=2
        ),
    ]
    name = f"{_words(CROSS)} in the base"
    statement = f"the image-only base has no such effect on the right option's probability (within ±{margin:g} points)"
    if base is None or not len(base.changes(CROSS, measure=FAIR)):
        return [*found, Finding("1", name, statement, None, "points", "cannot be told")]
    _, absent = base.peak(CROSS, measure=FAIR)
    gap = _paired(*_same_questions(tuned, base, CROSS, CROSS, measure=FAIR), _deeper, seed=tuned.settings.seed)
    return [
        *found,
        Finding("1", name, statement, absent, "points", judge(absent, low=-margin, high=margin)),
        Finding(
            claim="1",
            name="tuned minus base",
            statement="the tuned model's effect on it is the larger (difference on the same questions)",
            measured=gap,
            unit="points",
            verdict=judge_difference(gap, sign=-1, margin=margin),
        ),
    ]


def _second(tuned: FlowMap, margin: float) -> list[Finding]:
    """Then the video reaches the question, in the middle; landing on the true option, by a route that depends on the
    task."""
    landing = _route_difference(tuned, READ_TRUE, READ_FALSE)
    return [
        _effect("2a", tuned, INTO, "cutting video → question lowers the answer's probability", margin),
        _after("2a", tuned, INTO, CROSS, "it centres on later layers than attention between frames (distance)", margin),
        _centre("2a", tuned, INTO, "it centres on the middle layers (second third)", margin, low=1, high=2),
        Finding(
            claim="2a",
            name="true minus false options",
            statement="the last token needs the true option more than the false ones (difference of effects)",
            measured=landing,
            unit="%",
            verdict=judge_difference(landing, sign=-1, margin=margin),
        ),
        *(_route_of(tuned, task, margin, direct=True) for task in _traced(tuned, DIRECT_TASKS)),
        *(_route_of(tuned, task, margin, direct=False) for task in _traced(tuned, STEM_TASKS)),
    ]


def _third(tuned: FlowMap, margin: float) -> list[Finding]:
    """Then the question reaches the last token, middle to late; the video does not, directly."""
    _, direct = tuned.peak(DIRECT)
    return [
        _effect("3", tuned, OUT, "cutting question → last lowers the answer's probability", margin),
        _after("3", tuned, OUT, INTO, "it centres on later layers than video → question (distance)", margin),
        _centre("3", tuned, OUT, "it centres on the middle-to-late layers (last two thirds)", margin, low=1),
        Finding(
            claim="3",
            name=_words(DIRECT),
            statement=f"cutting video → last changes almost nothing (within ±{margin:g} %)",
            measured=direct,
            unit="%",
            verdict=judge(direct, low=-margin, high=margin),
        ),
    ]


def _traced(flow: FlowMap, tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if task in flow.tasks and len(flow.changes(OPTION_HOP, task=task))]


def _words(route: str) -> str:
    return route.replace("->", "→")


def _effect(claim: str, flow: FlowMap, route: str, statement: str, margin: float) -> Finding:
    _, measured = flow.peak(route)
    return Finding(claim, _words(route), statement, measured, "%", judge(measured, high=-margin))


def _centre(
    claim: str,
    flow: FlowMap,
    route: str,
    statement: str,
    margin: float,
    *,
    low: int | None = None,
    high: int | None = None,
) -> Finding:
    """`low` and `high` in thirds of the depth, on the scale of 0-based layers: layer l reaches from l − ½ to l + ½."""
    measured, third = flow.centre(route), flow.settings.n_layers / 3
    least = -math.inf if low is None else low * third - 0.5
    most = math.inf if high is None else high * third - 0.5
    verdict = judge(measured, low=least, high=most) if _there(flow, route, margin) else "cannot be told"
    return Finding(claim, f"{_words(route)}, centre", statement, measured, "layer", verdict)


def _after(claim: str, flow: FlowMap, later: str, earlier: str, statement: str, margin: float) -> Finding:
    """By how many layers one route centres after another."""
    measured = _paired(
        *_same_questions(flow, flow, later, earlier), lambda a, b: centre(a) - centre(b), seed=flow.settings.seed
    )
    both = _there(flow, later, margin) and _there(flow, earlier, margin)
    return Finding(
        claim,
        f"after {_words(earlier)}",
        statement,
        measured,
        "layers",
        judge(measured, low=0.0) if both else "cannot be told",
    )


def _there(flow: FlowMap, route: str, margin: float) -> bool:
    """Whether the route has an effect at all."""
    return judge(flow.peak(route)[1], high=-margin) == "holds"


def _route_of(flow: FlowMap, task: str, margin: float, *, direct: bool) -> Finding:
    """Both routes end at the same queries, the true option's tokens, so their effects can be compared."""
    gap = _route_difference(flow, OPTION_HOP, STEM_HOP, task=task)
    way = "straight from the video" if direct else "through the question's stem"
    return Finding(
        claim="2b",
        name=f"{task}, {'direct' if direct else 'through the stem'}",
        statement=f"{task}: the true option is reached {way}",
        measured=gap,
        unit="%",
        verdict=judge_difference(gap, sign=-1 if direct else 1, margin=margin),
    )


def _route_difference(flow: FlowMap, route: str, other: str, *, task: str | None = None) -> Interval:
    """Effect of one route minus that of another."""
    return _paired(*_same_questions(flow, flow, route, other, task=task), _deeper, seed=flow.settings.seed)


def _deeper(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.min() - b.min())


def _same_questions(
    a: FlowMap, b: FlowMap, of_a: str, of_b: str, *, task: str | None = None, measure: str = "answer"
) -> tuple[Curves, Curves]:
    """The changes of the questions that both have, in the same order."""
    tables = [flow.by_question(route, task=task, measure=measure).dropna() for flow, route in ((a, of_a), (b, of_b))]
    shared = tables[0].index.intersection(tables[1].index)
    if len(shared) == 0:
        raise VideolensError(f"no question was traced along {of_a!r} in {a!r} and along {of_b!r} in {b!r}")
    first, second = (table.loc[shared].to_numpy(dtype=float) for table in tables)
    return first, second


def _paired(a: Curves, b: Curves, statistic: Callable[[np.ndarray, np.ndarray], float], *, seed: int) -> Interval:
    """A statistic of two mean curves; each draw takes the same questions for both."""
    n = a.shape[1]
    return bootstrap(np.concatenate([a, b], axis=1), lambda both: statistic(both[:n], both[n:]), seed=seed)
