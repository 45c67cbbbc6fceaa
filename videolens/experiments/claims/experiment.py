"""Do the paper's claims hold in this model? Verdicts computed from intervals, and a sentence for each.

Map the Flow, claims 1 to 3: temporal reasoning starts with attention between frames, in early-to-middle layers, and a
model without video tuning lacks it, though not what other questions need; the video then reaches the question, and the
question the last token, hardly anything directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from videolens.errors import VideolensError
from videolens.experiments.claims.result import (
    MARGIN,
    Claims,
    Finding,
    Verdict,
    judge,
    judge_absent,
    judge_difference,
    judge_effect,
    questions_to_settle,
)
from videolens.experiments.common.statistics import Interval, centre
from videolens.experiments.flow.differences import mean_difference, paired, same_questions
from videolens.experiments.flow.result import FlowMap
from videolens.interventions.layer_sets import STYLES

CROSS, INTO, OUT, DIRECT = "cross-frame", "video -> question", "question -> last", "video -> last"
STEM_HOP, OPTION_HOP = "stem -> true option", "video -> true option"
READ_TRUE, READ_FALSE = "true option -> last", "false options -> last"
NEEDED = (CROSS, INTO, OUT, DIRECT, STEM_HOP, OPTION_HOP, READ_TRUE, READ_FALSE)
NEEDED_OF_BASE = (CROSS,)
NEEDED_STILL = (CROSS, INTO, OUT)

DIRECT_TASKS = ("action antonym", "action sequence", "scene transition")
STEM_TASKS = ("moving direction", "object count")

FAIR = "correct option"
"""The measure of what compares the models: see `check_claims`, step 2."""
_UNIT = {"answer": "%", FAIR: "points"}


def check_claims(
    tuned: FlowMap, base: FlowMap | None = None, still: FlowMap | None = None, *, margin: float = MARGIN
) -> Claims:
    """Judge claims 1 to 3 by flow maps of a video-tuned model and of its image-only base.

    1. The *effect* of a route is the mean relative change in the window where it is deepest, in percent. The layer it
       *centres* on is the mean layer, weighted by how far the mean change falls below zero.
    2. The base, and what compares it with the tuned model, is judged by the probability of the *right option*, in
       points. Where a model guesses, the token that it ranks first was picked for being the highest of near equals:
       whatever is done to the model tends to lower it, and that fall is no sign of information. The right option was
       not picked so.
    3. A base at chance has nothing to lose: that a cut costs it nothing says little by itself. On questions that a
       single frame answers it is right, so there the other routes must have an effect, and attention between frames
       none (`still`).
    4. Every interval is a 95 % bootstrap over questions (`bootstrap`); of an effect, with the window chosen once. Where
       two routes or two models are compared, it is that of the mean difference on the same questions, over *all*
       windows: the difference of two deepest windows would favour the noisier curve.
    5. A statement holds if its interval lies wholly on the side that it names, does not hold if it lies wholly on the
       other, and cannot be told otherwise. There is an effect if the interval lies below −`margin`, and so does that of
       the mean over all windows below zero; there is none if it lies within ±`margin`, of 50 questions or more: an
       interval that merely includes zero is not evidence of nothing. A difference counts from `margin` on. Where there
       is no effect, its centre cannot be told. Intervals of maps made in half precision are wider by what rounding
       makes of a mean (`FlowMap.noise_floor`).
    6. Early, middle and late are thirds of the model's depth.
    7. A claim holds if all its statements do, does not hold if one does not, and cannot be told otherwise.

    Args:
        tuned: of the video-tuned model, with at least the routes of `NEEDED`.
        base: of the image-only base on the same questions, traced with `samples="all"` along cross-frame; None: what
            compares the two cannot be told.
        still: of the base along `NEEDED_STILL`, on questions that one frame answers; None: what step 3 asks cannot be
            told.
        margin: what counts as no effect, and as no difference, in percent or points.

    Raises:
        VideolensError: a route is missing, the windows are of another style, the two maps of the base are of two
            models, or two maps to compare share no question.
    """
    for flow, needed in ((tuned, NEEDED), (base, NEEDED_OF_BASE), (still, NEEDED_STILL)):
        if flow is not None:
            _check(flow, needed)
    if base is not None and still is not None and base.settings.model != still.settings.model:
        raise VideolensError(
            f"the base is {base.settings.model!r}, but the still questions were asked of {still.settings.model!r}: "
            "trace both with one model"
        )
    findings = [*_first(tuned, base, still, margin), *_second(tuned, margin), *_third(tuned, margin)]
    return Claims(
        findings=tuple(findings),
        tuned=tuned.settings.model,
        base=None if base is None else base.settings.model,
        n_layers=tuned.settings.n_layers,
        window=tuned.settings.window or 0,
        margin=margin,
    )


def _check(flow: FlowMap, needed: Sequence[str]) -> None:
    if missing := [route for route in needed if route not in flow.routes]:
        raise VideolensError(f"the claims need the routes {missing}, which {flow!r} has not traced")
    if flow.settings.style != "centre":
        raise VideolensError(
            f"the claims are about windows around each layer (style 'centre'), and {flow!r} cuts "
            f"{STYLES[flow.settings.style]}: trace it with the default style"
        )


def _first(tuned: FlowMap, base: FlowMap | None, still: FlowMap | None, margin: float) -> list[Finding]:
    """Attention between frames, early to middle; the base has none of it, though it has what still clips need."""
    name = f"{_words(CROSS)} in the base"
    absent = f"the image-only base has no such effect on the right option's probability (within ±{margin:g} points)"
    found = [
        _effect("1", tuned, CROSS, "cutting attention between frames lowers the answer's probability", margin),
        _centre(
            "1", tuned, CROSS, "the effect centres on the early-to-middle layers (first two thirds)", margin, high=2
        ),
    ]
    if base is None or not len(base.changes(CROSS, measure=FAIR)):
        found.append(Finding("1", name, absent, None, "points", "cannot be told"))
    else:
        gap = mean_difference(tuned, base, CROSS, CROSS, measure=FAIR)
        larger = "the tuned model's effect on it is the larger (mean over all windows, same questions)"
        verdict = judge_difference(gap, sign=-1, margin=margin)
        found.append(_none("1", base, CROSS, absent, margin, measure=FAIR, name=name, at=_window(tuned, base)))
        found.append(Finding("1", "tuned minus base", larger, gap, "points", verdict))
    return [*found, *_on_still(still, tuned, margin)]


def _window(tuned: FlowMap, base: FlowMap) -> int:
    """The base's layer for where cutting attention between frames costs the tuned model's right option most."""
    layer, _ = tuned.peak(CROSS, measure=FAIR)
    return layer * base.settings.n_layers // tuned.settings.n_layers


def _on_still(still: FlowMap | None, tuned: FlowMap, margin: float) -> list[Finding]:
    """What shows that the base could have lost something: it answers still questions, by the other two routes."""
    where = "on questions that one frame answers, "
    if still is None or not len(still.changes(CROSS, measure=FAIR)):
        statement = f"{where}the base needs video → question and question → last, and no attention between frames"
        return [Finding("1", "the base on still clips", statement, None, "points", "cannot be told")]
    nothing = "attention between frames changes the base's right option by nothing"
    told: dict[str, Any] = {"measure": FAIR, "name": "{}, still, in the base"}
    return [
        _effect("1", still, INTO, f"{where}cutting video → question lowers the base's right option", margin, **told),
        _effect("1", still, OUT, f"{where}cutting question → last lowers the base's right option", margin, **told),
        _none(
            "1", still, CROSS, f"{where}{nothing} (within ±{margin:g} points)", margin, at=_window(tuned, still), **told
        ),
    ]


def _second(tuned: FlowMap, margin: float) -> list[Finding]:
    """Then the video reaches the question, in the middle; landing on the true option, by a route that depends on the
    task."""
    landing = mean_difference(tuned, tuned, READ_TRUE, READ_FALSE)
    return [
        _effect("2a", tuned, INTO, "cutting video → question lowers the answer's probability", margin),
        _after("2a", tuned, INTO, CROSS, "it centres on later layers than attention between frames (distance)", margin),
        _centre("2a", tuned, INTO, "it centres on the middle layers (second third)", margin, low=1, high=2),
        Finding(
            claim="2a",
            name="true minus false options",
            statement="the last token needs the true option more than the false ones (mean over all windows)",
            measured=landing,
            unit="%",
            verdict=judge_difference(landing, sign=-1, margin=margin),
        ),
        *(_route_of(tuned, task, margin, direct=True) for task in _traced(tuned, DIRECT_TASKS)),
        *(_route_of(tuned, task, margin, direct=False) for task in _traced(tuned, STEM_TASKS)),
    ]


def _third(tuned: FlowMap, margin: float) -> list[Finding]:
    """Then the question reaches the last token, middle to late; the video does not, directly."""
    return [
        _effect("3", tuned, OUT, "cutting question → last lowers the answer's probability", margin),
        _after("3", tuned, OUT, INTO, "it centres on later layers than video → question (distance)", margin),
        _centre("3", tuned, OUT, "it centres on the middle-to-late layers (last two thirds)", margin, low=1),
        _none("3", tuned, DIRECT, f"cutting video → last changes almost nothing (within ±{margin:g} %)", margin),
    ]


def _traced(flow: FlowMap, tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if task in flow.tasks and len(flow.changes(OPTION_HOP, task=task))]


def _words(route: str) -> str:
    return route.replace("->", "→")


def _effect(
    claim: str,
    flow: FlowMap,
    route: str,
    statement: str,
    margin: float,
    *,
    measure: str = "answer",
    name: str = "{}",
    judged: Callable[..., Verdict] = judge_effect,
    at: int | None = None,
) -> Finding:
    """That a cut has an effect; `judged` by `judge_absent`: that it has none. `at`: as `_local_and_whole`."""
    local, whole = _local_and_whole(flow, route, measure, at)
    verdict = judged(local, whole, margin=margin)
    low, high = (-margin, margin) if judged is judge_absent else (-math.inf, -margin)
    more = questions_to_settle(local, low=low, high=high) if verdict == "cannot be told" else None
    return Finding(claim, name.format(_words(route)), statement, local, _UNIT[measure], verdict, settled_by=more)


_none = partial(_effect, judged=judge_absent)


def _local_and_whole(
    flow: FlowMap, route: str, measure: str = "answer", at: int | None = None
) -> tuple[Interval, Interval]:
    """The effect in the window `at` a layer (None: in the deepest), and over all windows; both as uncertain as rounding
    makes them."""
    floor = flow.noise_floor(route, measure=measure)
    local = flow.peak(route, measure=measure)[1] if at is None else flow.change(route, at, measure=measure)
    return local.widened(floor), flow.effect(route, measure=measure).widened(floor)


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
    measured = paired(
        *same_questions(flow, flow, later, earlier), lambda a, b: centre(a) - centre(b), seed=flow.settings.seed
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
    return judge_effect(*_local_and_whole(flow, route), margin=margin) == "holds"


def _route_of(flow: FlowMap, task: str, margin: float, *, direct: bool) -> Finding:
    """Both routes end at the same queries, the true option's tokens, so their effects can be compared."""
    gap = mean_difference(flow, flow, OPTION_HOP, STEM_HOP, task=task)
    way = "straight from the video" if direct else "through the question's stem"
    return Finding(
        claim="2b",
        name=f"{task}, {'direct' if direct else 'through the stem'}",
        statement=f"{task}: the true option is reached {way}",
        measured=gap,
        unit="%",
        verdict=judge_difference(gap, sign=-1 if direct else 1, margin=margin),
    )
