"""Verdicts follow from intervals: on maps where the answer is known, on flat ones, and on what cannot be compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.flow import plausible_flow

import videolens as vl
from videolens.errors import VideolensError
from videolens.experiments.claims.experiment import NEEDED, check_claims
from videolens.experiments.claims.result import CLAIMS, Claims, Finding, judge, judge_difference
from videolens.experiments.common.statistics import Interval


def scaled(flow: vl.FlowMap, factor: float, routes: tuple[str, ...] = vl.ROUTES) -> vl.FlowMap:
    """The map with the changes of some routes multiplied."""
    table = flow.to_dataframe()
    rows = table["route"].isin(routes)
    table.loc[rows, "change_percent"] *= factor
    table.loc[rows, "p_knockout"] = table["p_base"] * (1 + table["change_percent"] / 100)
    table["p_correct_knockout"] = table["p_knockout"]  # in the invented maps the answer is right
    return vl.FlowMap(table, flow.settings)


@pytest.fixture(scope="module")
def tuned() -> vl.FlowMap:
    """Every task reaches the true option straight from the video, beyond doubt."""
    return scaled(plausible_flow(), 1.6, ("video -> true option",))


@pytest.fixture(scope="module")
def base() -> vl.FlowMap:
    return plausible_flow("shapes-image", from_video=0.0, samples="all", seed=1)


@pytest.fixture(scope="module")
def claims(tuned: vl.FlowMap, base: vl.FlowMap) -> Claims:
    return check_claims(tuned, base)


def verdicts(claims: Claims, claim: str) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in claims.about(claim)}


def test_claims_hold_where_the_map_was_made_so(claims: Claims) -> None:
    assert claims.verdict("1") == claims.verdict("3") == "holds"
    assert set(verdicts(claims, "1").values()) == {"holds"} and len(claims.about("1")) == 4
    # in the invented maps every task takes the direct route, so the two that should go through the stem do not
    assert claims.verdict("2a") == "holds" and len(claims.about("2a")) == 4
    failing = {name for name, verdict in verdicts(claims, "2b").items() if verdict != "holds"}
    assert claims.verdict("2b") == "does not hold" and len(claims.about("2b")) == 5
    assert failing == {"moving direction, through the stem", "object count, through the stem"}


def test_a_base_that_has_the_effect_refutes_the_first_claim(tuned: vl.FlowMap, claims: Claims) -> None:
    found = check_claims(tuned, plausible_flow("other", samples="all"))
    assert verdicts(found, "1")["cross-frame in the base"] == "does not hold"
    assert verdicts(found, "1")["tuned minus base"] == "cannot be told", "both are the same map: there is no difference"
    assert found.verdict("1") == "does not hold"
    gap = next(finding.measured for finding in found.about("1") if finding.name == "tuned minus base")
    assert (gap.value, gap.low, gap.high) == (0, 0, 0), "the same questions are drawn for both"


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
    assert absent.unit == "points" and "points, n = 40" in absent.numbers
    unknown = table.assign(p_correct_base=math.nan, p_correct_knockout=math.nan)
    found = check_claims(tuned, vl.FlowMap(unknown, base.settings))
    assert verdicts(found, "1")["cross-frame in the base"] == "cannot be told"


def test_without_a_base_what_compares_them_cannot_be_told(tuned: vl.FlowMap) -> None:
    alone = check_claims(tuned)
    assert alone.base is None and alone.verdict("1") == "cannot be told" and alone.verdict("3") == "holds"
    assert "not measured" in alone.sentence("1")


def test_where_nothing_happens_no_effect_is_claimed_and_no_centre(tuned: vl.FlowMap, base: vl.FlowMap) -> None:
    flat = check_claims(scaled(tuned, 0.001), base)
    assert verdicts(flat, "1") == {
        "cross-frame": "does not hold",
        "cross-frame, centre": "cannot be told",
        "cross-frame in the base": "holds",
        "tuned minus base": "cannot be told",
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


def test_differences_of_effects_are_those_of_the_deepest_windows(tuned: vl.FlowMap, claims: Claims) -> None:
    found = next(finding.measured for finding in claims.about("2a") if finding.name == "true minus false options")
    expected = tuned.peak("true option -> last")[1].value - tuned.peak("false options -> last")[1].value
    assert found.value == pytest.approx(expected) and found.low <= found.value <= found.high


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
    assert claims.sentence("1").startswith("Claim 1 holds in this model: all 4 statements hold (cross-frame −")
    layer, effect = tuned.peak("cross-frame")
    assert f"{effect.value:+.1f}".replace("-", "−") in claims.sentence("1")
    centre = tuned.centre("cross-frame").value + 1
    assert f"layer {centre:.1f}" in claims.sentence("1"), "layers are counted from 1 in words"
    assert claims.sentence("2b").startswith("Claim 2b does not hold as a whole in this model: 2 of its 5 statements")
    assert claims.sentence("1").endswith("n = 40.") and claims.sentence("2b").endswith("n = 8.")
    assert layer == pytest.approx(centre - 1, abs=1.5)


def test_they_can_be_tabulated_drawn_written_and_read(claims: Claims, tmp_path) -> None:
    table = claims.to_dataframe()
    assert list(table.columns) == ["claim", "name", "statement", "value", "low", "high", "n", "unit", "verdict"]
    assert len(table) == 4 + 9 + 4 and set(table["unit"]) == {"%", "points", "layer", "layers"}
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
