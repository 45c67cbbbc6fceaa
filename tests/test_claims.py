"""Verdicts follow from intervals: on maps where the answer is known, on flat ones, and on what cannot be compared."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.flow import TASKS, plausible_flow

import videolens as vl
from videolens.errors import VideolensError
from videolens.experiments.claims.experiment import NEEDED, READ_FALSE, READ_TRUE, check_claims
from videolens.experiments.claims.result import (
    CLAIMS,
    Claims,
    Finding,
    judge,
    judge_absent,
    judge_difference,
    judge_effect,
    questions_to_settle,
)
from videolens.experiments.common.statistics import Interval, bootstrap_mean, unseen
from videolens.experiments.flow import differences
from videolens.experiments.flow import result as flow_result


def scaled(flow: vl.FlowMap, factor: float, routes: tuple[str, ...] = vl.ROUTES) -> vl.FlowMap:
    """The map with the changes of some routes multiplied."""
    table = flow.to_dataframe()
    rows = table["route"].isin(routes)
    table.loc[rows, "change_percent"] *= factor
    table["p_knockout"] = (table["p_base"] * (1 + table["change_percent"] / 100)).clip(0, 1)
    table["change_percent"] = (table["p_knockout"] / table["p_base"] - 1) * 100
    table["p_correct_knockout"] = table["p_knockout"]  # in the invented maps the answer is right
    return vl.FlowMap(table, flow.settings)


@pytest.fixture(scope="module")
def tuned() -> vl.FlowMap:
    """Every task reaches the true option straight from the video, beyond doubt, and the last token never does."""
    return scaled(scaled(plausible_flow(n=40), 1.6, ("video -> true option",)), 0.2, ("video -> last",))


@pytest.fixture(scope="module")
def base() -> vl.FlowMap:
    return plausible_flow("shapes-image", n=40, from_video=0.0, samples="all", seed=1)


@pytest.fixture(scope="module")
def still() -> vl.FlowMap:
    """The base where one frame is enough: it needs what it sees, and not the frames' order."""
    flow = plausible_flow("shapes-image", n=100, samples="all", tasks=("colour", "place"), seed=2)
    return scaled(flow, 0.01, ("cross-frame",))


@pytest.fixture(scope="module")
def claims(tuned: vl.FlowMap, base: vl.FlowMap, still: vl.FlowMap) -> Claims:
    return check_claims(tuned, base, still)


def verdicts(claims: Claims, claim: str) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in claims.about(claim)}


def test_claims_hold_where_the_map_was_made_so(claims: Claims) -> None:
    assert claims.verdict("1") == claims.verdict("3") == "holds"
    assert set(verdicts(claims, "1").values()) == {"holds"} and len(claims.about("1")) == 7
    # in the invented maps every task takes the direct route, so the two that should go through the stem do not
    assert claims.verdict("2a") == "holds" and len(claims.about("2a")) == 4
    failing = {name for name, verdict in verdicts(claims, "2b").items() if verdict != "holds"}
    assert claims.verdict("2b") == "does not hold" and len(claims.about("2b")) == 5
    assert failing == {"moving direction, through the stem", "object count, through the stem"}


def test_a_base_that_has_the_effect_refutes_the_first_claim(tuned: vl.FlowMap, claims: Claims) -> None:
    found = check_claims(tuned, plausible_flow("other", n=40, samples="all"))
    assert verdicts(found, "1")["cross-frame in the base"] == "does not hold"
    assert verdicts(found, "1")["tuned minus base"] == "cannot be told", "both are the same map: there is no difference"
    assert found.verdict("1") == "does not hold"
    gap = next(finding.measured for finding in found.about("1") if finding.name == "tuned minus base")
    assert gap.value == pytest.approx(0, abs=1e-9), "the same questions for both"
    assert gap.high == pytest.approx(-gap.low) and gap.high == pytest.approx(100 * unseen(200))


def test_a_base_that_only_guesses_is_not_taken_for_one_that_uses_time(tuned: vl.FlowMap, base: vl.FlowMap) -> None:
    """Its first-ranked token falls, as the highest of near equals does; the right option stays where it was."""
    table = base.to_dataframe()
    table.loc[table["route"] == "cross-frame", "change_percent"] -= 10.0
    table["p_knockout"] = table["p_base"] * (1 + table["change_percent"] / 100)
    guessing = vl.FlowMap(table, base.settings)
    assert judge(guessing.peak("cross-frame")[1], low=-3.0, high=3.0) == "does not hold"
    found = check_claims(tuned, guessing)
    assert verdicts(found, "1")["cross-frame in the base"] == verdicts(found, "1")["tuned minus base"] == "holds"
    absent = next(finding for finding in found.about("1") if finding.name == "cross-frame in the base")
    assert absent.unit == "points" and "points, n = 200" in absent.numbers
    unknown = table.assign(p_correct_base=math.nan, p_correct_knockout=math.nan)
    found = check_claims(tuned, vl.FlowMap(unknown, base.settings))
    assert verdicts(found, "1")["cross-frame in the base"] == "cannot be told"


def test_the_base_is_judged_where_the_tuned_model_says(tuned: vl.FlowMap, base: vl.FlowMap, still: vl.FlowMap) -> None:
    """Not in its own deepest window, which would be chosen on the data that it is judged by."""
    layer, _ = tuned.peak("cross-frame", measure="correct option")
    for flow, name in ((base, "cross-frame in the base"), (still, "cross-frame, still, in the base")):
        (found,) = [each for each in check_claims(tuned, base, still).findings if each.name == name]
        assert found.measured == flow.change("cross-frame", layer, measure="correct option")
    assert base.peak("cross-frame", measure="correct option")[0] != layer
    with pytest.raises(VideolensError, match=r"no knockout .* at layer 99"):
        base.change("cross-frame", 99)


def test_how_many_questions_would_settle_it() -> None:
    wide = Interval(-0.5, -4.0, 3.0, n=100)
    assert questions_to_settle(wide, low=-3.0, high=3.0) == math.ceil(100 * (3.5 / 2.5) ** 2)
    assert questions_to_settle(Interval(-2.95, -4.0, -2.0, n=100), low=-3.0, high=3.0) is None, "too near to an end"
    assert questions_to_settle(Interval(0.0, -0.1, 0.1, n=20), low=-3.0, high=3.0) == 50, "fewer never tell"
    # of 400 more like them, an interval drawn anew is narrow enough
    rng = np.random.default_rng(0)
    small, large = (rng.normal(-0.5, 15.0, n) for n in (100, 600))
    few, many = (bootstrap_mean(values) for values in (small, large))
    needed = questions_to_settle(few, low=-3.0, high=3.0)
    assert judge(few, low=-3.0, high=3.0) == "cannot be told" and 100 < needed < 600
    assert judge(many, low=-3.0, high=3.0) == "holds"


def test_what_cannot_be_told_says_what_would_tell(tuned: vl.FlowMap) -> None:
    unsure = scaled(plausible_flow("other", n=8, samples="all", seed=3), 0.15, ("cross-frame",))
    (found,) = [each for each in check_claims(tuned, unsure).findings if each.name == "cross-frame in the base"]
    assert found.verdict == "cannot be told"
    assert (found.settled_by is None) == ("would tell" not in found.numbers)
    assert found.settled_by is not None and found.settled_by >= 50


def test_without_a_base_what_compares_them_cannot_be_told(tuned: vl.FlowMap) -> None:
    alone = check_claims(tuned)
    assert alone.base is None and alone.verdict("1") == "cannot be told" and alone.verdict("3") == "holds"
    assert "not measured" in alone.sentence("1")


def test_without_still_questions_the_base_may_have_had_nothing_to_lose(
    tuned: vl.FlowMap, base: vl.FlowMap, still: vl.FlowMap, claims: Claims
) -> None:
    blind = check_claims(tuned, base)
    assert verdicts(blind, "1")["the base on still clips"] == "cannot be told" == blind.verdict("1")
    names = [f"{route}, still, in the base" for route in ("video → question", "question → last", "cross-frame")]
    assert [verdicts(claims, "1")[name] for name in names] == ["holds"] * 3
    # a base that answers nothing has no such effect, and one that needs the frames' order even here has another
    nothing = check_claims(tuned, base, scaled(still, 0.001))
    assert [verdicts(nothing, "1")[name] for name in names] == ["does not hold", "does not hold", "holds"]
    ordered = plausible_flow("shapes-image", n=100, samples="all", tasks=("colour", "place"), seed=2)
    assert verdicts(check_claims(tuned, base, ordered), "1")[names[2]] == "does not hold"
    assert check_claims(tuned, base, ordered).verdict("1") == "does not hold"
    with pytest.raises(VideolensError, match="base is 'shapes-image', but the still questions were asked of 'other'"):
        check_claims(tuned, base, plausible_flow("other", n=2))


def test_less_than_fifty_questions_do_not_show_that_there_is_nothing(tuned: vl.FlowMap) -> None:
    seen = Interval(-0.1, -0.3, 0.2, 49)
    more = replace(seen, n=50)
    assert judge_absent(seen, seen, margin=3.0) == "cannot be told" and judge_absent(more, more, margin=3.0) == "holds"
    assert judge_effect(seen, seen, margin=3.0) == "cannot be told"
    assert judge_effect(more, more, margin=3.0) == "does not hold"
    asked = list(dict.fromkeys(zip(tuned.table["task"], tuned.table["question"], strict=True)))
    fewer = tuned.of(asked[::5], reason="fewer")
    assert fewer.n == 40 and verdicts(check_claims(fewer), "3")["video → last"] == "cannot be told"


def test_a_deep_window_in_a_curve_that_falls_nowhere_else_is_no_effect() -> None:
    deep, flat, fallen = Interval(-9.0, -14.0, -4.0, 60), Interval(-0.1, -0.9, 0.6, 60), Interval(-2.0, -3.0, -1.0, 60)
    assert judge_effect(deep, flat, margin=3.0) == "cannot be told" == judge_absent(deep, flat, margin=3.0)
    assert judge_effect(deep, fallen, margin=3.0) == "holds"
    assert judge_absent(deep, fallen, margin=3.0) == "does not hold"
    assert judge(replace(deep, n=1), high=0.0) == "cannot be told", "one question tells nothing"


def carrier(model: str, routes: list[str], tasks: tuple[str, ...]) -> vl.FlowMap:
    """A map of 100 questions along some routes, to put changes into: every probability starts at one half."""
    flow = plausible_flow(model, n=100 // len(tasks), tasks=tasks)
    table = flow.to_dataframe()
    table = table[table["route"].isin(routes)].reset_index(drop=True)
    table["p_base"], table["p_correct_base"] = 0.5, 0.5
    return with_changes(table, flow, {})


def with_changes(table: pd.DataFrame, flow: vl.FlowMap, curves: dict[str, np.ndarray]) -> vl.FlowMap:
    """The map with other changes along some routes."""
    for route, values in curves.items():
        table.loc[table["route"] == route, "change_percent"] = values.ravel()
    table["change_percent"] = table["change_percent"].clip(-100, 100)
    table["p_knockout"] = 0.5 * (1 + table["change_percent"] / 100)
    table["p_correct_knockout"] = table["p_knockout"]
    return vl.FlowMap(table, flow.settings)


def flipped(flow: vl.FlowMap, curves: dict[str, np.ndarray], signs: np.random.Generator) -> vl.FlowMap:
    """The map with these changes, each question's turned round or not, by chance, route by route."""
    turned = {route: values * signs.choice([-1.0, 1.0], (len(values), 1)) for route, values in curves.items()}
    return with_changes(flow.to_dataframe(), flow, turned)


def test_where_signs_are_flipped_by_chance_nothing_holds_more_often_than_one_time_in_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Changes measured in the bundled pair, with the sizes and the skew that such changes have, and no effect: each
    question's curve is as likely to rise as to fall. (With the difference of two deepest windows, found anew in every
    draw, one in five "held".)
    """
    with np.load(Path(__file__).parent / "data" / "flow-curves.npz") as file:
        measured = {name: file[name].astype(float) for name in file.files}
    for module in (differences, flow_result):
        monkeypatch.setattr(module, "bootstrap", partial(module.bootstrap, replicates=300))
    of_tuned, of_base, of_still = (
        {name.split(" ", 1)[1]: values for name, values in measured.items() if name.startswith(whose)}
        for whose in ("tuned", "base", "still")
    )
    held: Counter[tuple[str, str]] = Counter()
    claims_there: Counter[str] = Counter()
    two = ("colour", "place")
    maps = [
        (carrier("tuned", list(of_tuned), TASKS), of_tuned),
        (carrier("base", ["cross-frame"], TASKS), of_base),
        (carrier("base", list(of_still), two), of_still),
    ]
    rng, times = np.random.default_rng(11), 100
    for _ in range(times):
        found = check_claims(*(flipped(flow, curves, rng) for flow, curves in maps))
        # that nothing is there is true here, and may hold
        held.update((each.claim, each.name) for each in found.findings if each.verdict == "holds")
        claims_there.update(each.name for each in found.findings)
    true_here = {("1", "cross-frame in the base"), ("1", "cross-frame, still, in the base"), ("3", "video → last")}
    assert set(claims_there.values()) == {times} and len(claims_there) == 20
    assert {each: count for each, count in held.items() if count > 0.05 * times and each not in true_here} == {}


def test_a_noisier_curve_is_not_taken_for_a_deeper_one() -> None:
    """No effect on either side, one side five times as noisy: the difference says "holds" as seldom as otherwise."""
    held, flow = 0, carrier("m", [READ_TRUE, READ_FALSE], TASKS)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        noisy, calm = (scale * rng.normal(0, 1, (100, 12)).cumsum(1) for scale in (5.0, 1.0))
        curves = {READ_TRUE: noisy, READ_FALSE: calm}
        noise = with_changes(flow.to_dataframe(), flow, curves)
        gap = differences.mean_difference(noise, noise, *curves)
        held += judge_difference(gap, sign=-1, margin=0.0) == "holds"
    assert held <= 0.05 * 100


def test_where_nothing_happens_no_effect_is_claimed_and_no_centre(tuned: vl.FlowMap, base: vl.FlowMap) -> None:
    flat = check_claims(scaled(tuned, 0.001), base)
    assert verdicts(flat, "1") == {
        "cross-frame": "does not hold",
        "cross-frame, centre": "cannot be told",
        "cross-frame in the base": "holds",
        "tuned minus base": "cannot be told",
        "the base on still clips": "cannot be told",
    }
    assert verdicts(flat, "3")["after video → question"] == "cannot be told"
    assert verdicts(flat, "3")["video → last"] == "holds", "that nothing goes there directly is true of a flat map"
    assert all(verdict == "cannot be told" for name, verdict in verdicts(flat, "2b").items() if "," in name)


def test_tasks_without_a_route_of_their_own_leave_that_part_open(base: vl.FlowMap) -> None:
    found = check_claims(plausible_flow(tasks=("something else",)))
    assert found.about("2b") == [] and found.verdict("2b") == "cannot be told"
    assert found.sentence("2b") == "Claim 2b cannot be told: none of its tasks was traced."


def test_the_order_of_stages_is_told_from_paired_draws(tuned: vl.FlowMap, base: vl.FlowMap) -> None:
    table = tuned.to_dataframe()
    swap = {"cross-frame": "video -> question", "video -> question": "cross-frame"}
    table["route"] = table["route"].replace(swap)
    found = check_claims(vl.FlowMap(table, tuned.settings), base)
    assert verdicts(found, "2a")["after cross-frame"] == "does not hold"
    late = next(finding.measured for finding in found.about("2a") if finding.name == "after cross-frame")
    centres = tuned.centre("cross-frame").value - tuned.centre("video -> question").value
    assert late.value == pytest.approx(centres), "two ways to one number"


def test_differences_are_those_of_the_means_over_all_windows(
    tuned: vl.FlowMap, base: vl.FlowMap, claims: Claims
) -> None:
    found = next(finding.measured for finding in claims.about("2a") if finding.name == "true minus false options")
    expected = tuned.effect("true option -> last").value - tuned.effect("false options -> last").value
    assert found.value == pytest.approx(expected) and found.low <= found.value <= found.high
    gap = next(finding.measured for finding in claims.about("1") if finding.name == "tuned minus base")
    fair = [flow.effect("cross-frame", measure="correct option").value for flow in (tuned, base)]
    assert gap.value == pytest.approx(fair[0] - fair[1])


@pytest.mark.parametrize(
    ("interval", "bounds", "expected"),
    [
        ((-5, -9, -1), {"high": 0.0}, "holds"),
        ((-5, -9, 1), {"high": 0.0}, "cannot be told"),
        ((5, 1, 9), {"high": 0.0}, "does not hold"),
        ((0, -1, 1), {"low": -3.0, "high": 3.0}, "holds"),
        ((0, -4, 1), {"low": -3.0, "high": 3.0}, "cannot be told"),
        ((-6, -9, -4), {"low": -3.0, "high": 3.0}, "does not hold"),
        ((math.nan, math.nan, math.nan), {"high": 0.0}, "cannot be told"),
        ((1.0, math.nan, math.nan), {"low": 0.0}, "cannot be told"),
    ],
)
def test_a_verdict_needs_the_whole_interval(interval, bounds, expected: str) -> None:
    assert judge(Interval(*map(float, interval), n=8), **bounds) == expected


def test_a_difference_needs_a_sign_and_a_size() -> None:
    assert judge_difference(Interval(-9.0, -12.0, -5.0, 8), sign=-1, margin=3.0) == "holds"
    assert judge_difference(Interval(-9.0, -12.0, -5.0, 8), sign=1, margin=3.0) == "does not hold"
    assert judge_difference(Interval(-2.0, -2.5, -1.5, 8), sign=-1, margin=3.0) == "cannot be told"
    assert judge_difference(Interval(-9.0, -20.0, 2.0, 8), sign=-1, margin=3.0) == "cannot be told"
    assert judge_difference(Interval(math.nan, math.nan, math.nan, 0), sign=-1, margin=3.0) == "cannot be told"


def test_sentences_carry_the_verdict_and_the_numbers(tuned: vl.FlowMap, claims: Claims) -> None:
    assert claims.sentence("1").startswith("Claim 1 holds in this model: all 7 statements hold (cross-frame −")
    layer, effect = tuned.peak("cross-frame")
    assert f"{effect.value:+.1f}".replace("-", "−") in claims.sentence("1")
    centre = tuned.centre("cross-frame").value + 1
    assert f"layer {centre:.1f}" in claims.sentence("1"), "layers are counted from 1 in words"
    assert claims.sentence("2b").startswith("Claim 2b does not hold as a whole in this model: 2 of its 5 statements")
    assert claims.sentence("1").endswith("n = 200.") and claims.sentence("2b").endswith("n = 40.")
    assert layer == pytest.approx(centre - 1, abs=1.5)


def test_they_can_be_tabulated_drawn_written_and_read(claims: Claims, tmp_path) -> None:
    table = claims.to_dataframe()
    assert list(table.columns) == ["claim", "name", "statement", "value", "low", "high", "n", "unit", "verdict"]
    assert len(table) == 7 + 9 + 4 and set(table["unit"]) == {"%", "points", "layer", "layers"}
    claims.figure().savefig(tmp_path / "figure.png")
    again = Claims.load(claims.save(tmp_path))
    pd.testing.assert_frame_equal(again.to_dataframe(), table)
    assert again == claims and again.sentence("2b") == claims.sentence("2b")
    assert json.loads((tmp_path / "claims.json").read_text())["margin"] == 3.0
    with pytest.raises(VideolensError, match="already holds"):
        claims.save(tmp_path)
    with pytest.raises(VideolensError, match=r"holds no .*claims\.json"):
        Claims.load(tmp_path / "elsewhere")


def test_contradictions_are_refused(tuned: vl.FlowMap, claims: Claims) -> None:
    fewer = tuned.to_dataframe()
    fewer = vl.FlowMap(fewer[fewer["route"] != "cross-frame"].reset_index(drop=True), tuned.settings)
    with pytest.raises(VideolensError, match=r"need the routes \['cross-frame'\]"):
        check_claims(fewer)
    others = tuned.to_dataframe().assign(question=lambda table: table["question"] + " of others")
    with pytest.raises(VideolensError, match="no question was traced"):
        check_claims(tuned, vl.FlowMap(others, tuned.settings))
    with pytest.raises(VideolensError, match=r"no finding about the claims \['1'\]"):
        replace(claims, findings=tuple(claims.about("2a") + claims.about("3")))
    with pytest.raises(VideolensError, match="nothing was measured"):
        Finding("1", "a", "b", None, "%", "holds")
    with pytest.raises(VideolensError, match="claim '4'"):
        Finding("4", "a", "b", None, "%", "cannot be told")


def test_every_claim_needs_routes_that_exist() -> None:
    assert set(NEEDED) <= set(vl.ROUTES) and list(CLAIMS) == ["1", "2a", "2b", "3"]
    assert np.all([len(text) > 40 for text in CLAIMS.values()])
