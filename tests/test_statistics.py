"""Bootstrap means, centres and shares: right on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videolens.errors import VideolensError
from videolens.experiments.common.statistics import bootstrap, bootstrap_curve, centre, proportion


def test_the_bootstrap_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    values = np.random.default_rng(1).normal(-20, 8, size=(400, 3))
    mean, low, high = bootstrap_curve(values)
    half = 1.96 * values.std(axis=0) / math.sqrt(400)
    assert np.allclose(mean, values.mean(axis=0))
    assert np.allclose(high - mean, half, rtol=0.12) and np.allclose(mean - low, half, rtol=0.12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        one = bootstrap(rng.exponential(5, size=(60, 1)), lambda curve: float(curve[0]), seed=seed, replicates=400)
        covered += one.low <= 5 <= one.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=(20, 4))
    first, again, other = (bootstrap(values, centre, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


def test_questions_are_drawn_and_not_layers() -> None:
    # two kinds of question, one per layer: every replicate keeps a question's layers together, so their mean sums to 1
    values = np.repeat(np.eye(2), 10, axis=0)
    total = bootstrap(values, lambda curve: float(curve.sum()))
    assert (total.low, total.value, total.high) == pytest.approx((1, 1, 1))


def test_the_centre_is_the_mean_layer_weighted_by_the_fall() -> None:
    assert centre(np.array([0.0, -10.0, -30.0, 0.0])) == pytest.approx((1 * 10 + 2 * 30) / 40)
    assert centre(np.array([50.0, -10.0, 0.0])) == 1.0, "a rise weighs nothing"
    assert math.isnan(centre(np.array([0.0, 3.0])))


@given(st.lists(st.floats(-100, -0.1), min_size=1, max_size=40), st.floats(0.1, 10))
def test_the_centre_does_not_depend_on_the_size_of_the_effect(falls: list[float], scale: float) -> None:
    curve = np.array(falls)
    assert centre(curve * scale) == pytest.approx(centre(curve))
    assert 0 <= centre(curve) <= len(curve) - 1 + 1e-9


def test_a_centre_that_no_draw_has_is_nan_and_not_a_number() -> None:
    nowhere = bootstrap(np.ones((5, 3)), centre)
    assert math.isnan(nowhere.value) and math.isnan(nowhere.low) and nowhere.n == 5


def test_wilson_is_right_at_the_ends() -> None:
    assert proportion(0, 10).low == 0 and proportion(0, 10).high == pytest.approx(0.2775, abs=1e-3)
    assert proportion(10, 10).high == pytest.approx(1) and proportion(10, 10).low == pytest.approx(0.7225, abs=1e-3)
    assert proportion(50, 100).value == 0.5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: bootstrap_curve(np.zeros((0, 3))), "no question to draw from"),
        (lambda: bootstrap(np.zeros((0, 3)), centre), "no question to draw from"),
        (lambda: bootstrap_curve(np.zeros((2, 3)), level=95.0), "between 0 and 1, got 95"),
        (lambda: proportion(3, 2), "got 3 of 2"),
        (lambda: proportion(0, 0), "got 0 of 0"),
    ],
)
def test_misuse_is_one_clear_error(call, says: str) -> None:
    with pytest.raises(VideolensError, match=says):
        call()
