"""Flow maps of several models: depth, distances, what noise makes of them, and what is refused."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import pytest
from helpers.flow import plausible_flow

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.flow_comparison.experiment import shape_distance


@pytest.fixture(scope="module")
def flows() -> dict[str, vl.FlowMap]:
    return {
        "tuned": plausible_flow("shapes", n=6),
        "base": plausible_flow("shapes-image", n=6, from_video=0.3, seed=1),
        "half": plausible_flow("other", n=6, n_layers=6, seed=2),
    }


@pytest.fixture(scope="module")
def compared(flows) -> vl.FlowComparison:
    return vl.compare_flows(flows)


def test_every_models_numbers_are_those_of_its_map(flows, compared: vl.FlowComparison) -> None:
    assert compared.names == list(flows) and compared.n == 30 and compared.tasks == []
    for name, flow in flows.items():
        curve = flow.curve("cross-frame", measure="correct option")
        rows = compared.table[compared.table["model"] == name]
        np.testing.assert_array_equal(rows["mean"], curve.mean)
        depth = flow.settings.n_layers
        np.testing.assert_allclose(rows["depth"], (np.arange(depth) + 0.5) / depth)
        row = compared.models.set_index("model").loc[name]
        assert row["effect"] == flow.effect("cross-frame", measure="correct option").value
        centre = flow.centre("cross-frame", measure="correct option")
        assert row["centre"] == pytest.approx((centre.value + 0.5) / depth)


def test_a_distance_is_the_first_minus_the_second(flows, compared: vl.FlowComparison) -> None:
    effects = {name: flow.effect("cross-frame", measure="correct option").value for name, flow in flows.items()}
    gap = compared.distance("tuned", "base", "effect")
    assert gap.value == pytest.approx(effects["tuned"] - effects["base"]) and gap.low < -15 and gap.n == 30
    back = compared.distance("base", "tuned", "effect")
    assert (back.value, back.low, back.high) == (-gap.value, -gap.high, -gap.low)
    assert compared.distance("base", "tuned") == compared.distance("tuned", "base"), "a shape has no direction"
    for bad in [("tuned", "tuned"), ("tuned", "tune"), ("tuned", "base", "size")]:
        with pytest.raises(VideolensError, match=r"twice|tuned|effect"):
            compared.distance(*bad)


def test_shapes_that_are_apart_and_shapes_that_are_alike() -> None:
    falls = -np.eye(4)
    assert shape_distance(falls[0], falls[1]) == 1.0
    assert shape_distance(falls[:2], falls[[0, 0]]).tolist() == [0.0, 1.0]
    assert shape_distance(3 * falls[0], falls[0]) == 0.0, "a share of the effect, whatever its size"
    assert shape_distance(-falls[0] - falls[1], falls[0] * 0 - falls[1]) != 0
    assert np.isnan(shape_distance(np.ones(4), falls[0])), "nothing falls"


def moved(flow: vl.FlowMap, by: int) -> vl.FlowMap:
    """The same map with all effects some layers later."""
    table = flow.to_dataframe()
    columns = [name for name in table.columns if name not in ("question", "task", "route", "layer")]
    for _, rows in table.groupby(["task", "question", "route"], sort=False):
        table.loc[rows.index, columns] = rows[columns].shift(by).bfill().to_numpy()
    return vl.FlowMap(table.astype(flow.table.dtypes.to_dict()), flow.settings)


def test_noise_alone_makes_a_distance_and_it_is_said(flows) -> None:
    """Two draws of one map are nearer than chance allows 5 % of the time; a map moved by three layers is not."""
    tuned = flows["tuned"]
    alike = {"one": tuned, "two": plausible_flow("shapes", n=6, seed=5)}
    apart = {"one": tuned, "two": moved(tuned, 3)}
    near, far = (vl.compare_flows(each).distances.iloc[0] for each in (alike, apart))
    assert 0 < near["shape"] < 2 * near["shape_by_chance"]
    assert far["shape"] > 2 * far["shape_by_chance"] and far["shape_low"] > far["shape_by_chance"]
    assert -3 / 12 < far["centre"] < -0.1 and far["centre_high"] < 0
    assert abs(near["centre"]) < 0.02


def test_a_weak_effect_of_the_same_shape_is_not_apart(flows) -> None:
    """A tenth of the effect with noise of its own: swapping raw curves would have drowned that noise in the other's."""
    tuned = flows["tuned"]
    table = tuned.to_dataframe()
    fall = table["p_correct_knockout"] - table["p_correct_base"]
    noise = np.random.default_rng(0).normal(0, 0.03, len(table))
    weak = (table["p_correct_base"] + 0.1 * fall + noise).clip(0, 1)
    other = vl.FlowMap(table.assign(p_correct_knockout=weak), tuned.settings)
    row = vl.compare_flows({"strong": tuned, "weak": other}).distances.iloc[0]
    assert 0.05 < row["shape"] < 1.5 * row["shape_by_chance"]


def test_a_route_that_takes_nothing_away_has_no_centre(flows) -> None:
    raised = flows["tuned"].to_dataframe()
    up = {"p_correct_knockout": raised["p_correct_base"], "p_knockout": raised["p_base"], "change_percent": 0.0}
    still = vl.FlowMap(raised.assign(**up), flows["tuned"].settings)
    found = vl.compare_flows({"tuned": flows["tuned"], "still": still})
    row = found.distances.iloc[0]
    assert np.isnan(row["centre"]) and np.isnan(row["shape"]) and np.isnan(row["shape_by_chance"])
    assert row["effect"] < 0 and "not defined" in "".join(text.get_text() for text in found.figure().texts)
    assert repr(found).endswith("correct option)")


def test_saved_and_by_task(flows, tmp_path) -> None:
    found = vl.compare_flows(flows, "video -> question", task="object count", measure="answer")
    assert found.tasks == ["object count"] and found.n == 6
    again = vl.FlowComparison.load(found.save(tmp_path / "it"))
    assert repr(again) == repr(found) and again.distance("tuned", "half") == found.distance("tuned", "half")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda f: ({"tuned": f["tuned"]},), VideolensError, "two to 8 flow maps by name.*got 1"),
        (lambda f: ({"": f["tuned"], "b": f["base"]},), VideolensError, "give every flow map a name"),
        (lambda f: (f, "cross frame"), SelectionError, "cross-frame"),
        (lambda f: ({"a": f["tuned"], "b": plausible_flow(n=2, style="inverse")},), VideolensError, "default style"),
    ],
)
def test_what_is_refused(flows, change: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        vl.compare_flows(*change(flows))


def test_maps_that_share_no_question(flows) -> None:
    table = flows["base"].to_dataframe()
    other = vl.FlowMap(table.assign(question="other " + table["question"]), flows["base"].settings)
    with pytest.raises(VideolensError, match=r"'tuned' and 'other' share no question.*same questions"):
        vl.compare_flows({"tuned": flows["tuned"], "other": other})


def test_what_is_no_flow_map(flows, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for bad, said in [(list(flows.values()), "by name.*got list"), ({"a": flows["tuned"], "b": 3}, "'b' is 3: give")]:
        with pytest.raises(VideolensError, match=said):
            vl.compare_flows(bad)
