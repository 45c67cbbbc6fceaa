"""Bootstrap means, centres and shares: right on cases whose answer is known."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videolens.errors import VideolensError
from videolens.experiments.common.statistics import (
    bootstrap,
    bootstrap_curve,
    bootstrap_shares,
    centre,
    proportion,
    unseen,
)


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
        one = bootstrap(rng.exponential(5, size=(60, 1)), lambda curves: curves[..., 0], seed=seed, replicates=400)
        covered += one.low <= 5 <= one.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=(20, 4))
    first, again, other = (bootstrap(values, centre, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


def test_questions_are_drawn_and_not_layers() -> None:
    # two kinds of question, one per layer: every replicate keeps a question's layers together, so their mean sums to 1
    values = np.repeat(np.eye(2), 10, axis=0)
    total = bootstrap(values, lambda curves: curves.sum(axis=-1))
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
        (lambda: bootstrap_curve(np.ones((2, 3)), within=(2, 5)), r"within 2 … 5, but their mean runs from 1 to 1"),
        (lambda: proportion(3, 2), "got 3 of 2"),
        (lambda: proportion(0, 0), "got 0 of 0"),
    ],
)
def test_misuse_is_one_clear_error(call, says: str) -> None:
    with pytest.raises(VideolensError, match=says):
        call()


def skewed(rng: np.random.Generator, n: int, samples: int) -> tuple[np.ndarray, float]:
    """A quarter of the questions falls far, the others hardly change; and the true mean."""
    falls = rng.random((n, samples)) < 0.25
    return np.where(falls, rng.uniform(-100, -50, falls.shape), rng.normal(0, 1, falls.shape)), -0.25 * 75


def rare(rng: np.random.Generator, n: int, samples: int) -> tuple[np.ndarray, float]:
    """One in 25 falls to nothing, the others by one percent."""
    falls = rng.random((n, samples)) < 0.04
    return np.where(falls, -100.0, rng.normal(-1, 1, falls.shape)), -0.04 * 100 - 0.96


@pytest.mark.parametrize("n", [20, 30, 50, 100, 200])
@pytest.mark.parametrize("kind", [skewed, rare])
def test_intervals_cover_the_truth_where_few_questions_carry_the_effect(kind, n: int) -> None:
    """1,000 samples, each a column; ten bootstraps of their own, so that no one set of draws decides."""
    covered = 0
    for seed in range(10):
        values, truth = kind(np.random.default_rng(100 * n + seed), n, 100)
        _, low, high = bootstrap_curve(values, within=(-100, 100), seed=seed)
        covered += int(((low <= truth) & (truth <= high)).sum())
    assert covered >= 920


def test_too_few_questions_do_not_show_that_rare_effects_are_absent() -> None:
    """Of 50 questions one in eight samples has none of those that fall; a plain bootstrap is then sure of nothing."""
    for n in (10, 20, 50, 100):
        values, truth = rare(np.random.default_rng(n), n, 1000)
        _, low, high = bootstrap_curve(values, within=(-100, 100))
        assert truth < -3 and np.mean((low > -3) & (high < 3)) <= 0.05


def test_where_nothing_changed_the_rule_of_three_bounds_what_was_not_seen() -> None:
    for n in (20, 50, 300):
        mean, low, high = bootstrap_curve(np.zeros((n, 2)), within=(-100, 50))
        assert mean.tolist() == [0, 0] and low == pytest.approx([-100 * unseen(n)] * 2)
        assert high == pytest.approx([50 * unseen(n)] * 2) and unseen(n) == pytest.approx(3 / n, rel=0.1)
        assert (1 - unseen(n)) ** n == pytest.approx(0.05), "so rarely n questions show none of so many"
        one = bootstrap(np.zeros((n, 2)), lambda curves: curves.mean(axis=-1), within=(-100, 50))
        assert (one.low, one.high) == pytest.approx((low[0], high[0])), "two ways to one number"


def test_the_interval_of_a_skewed_mean_reaches_further_where_the_tail_is() -> None:
    values, _ = skewed(np.random.default_rng(4), 40, 1)
    one = bootstrap(values, lambda curves: curves[..., 0])
    assert one.value - one.low > 1.1 * (one.high - one.value)
    _, low, high = bootstrap_curve(values)
    assert (low[0], high[0]) == pytest.approx((one.low, one.high)), "two ways to one number"


def test_pooled_shares_are_covered_too() -> None:
    rng, covered = np.random.default_rng(5), 0
    for seed in range(100):
        counts = rng.poisson(rng.exponential([1.0, 3.0], (40, 2)))
        _, low, high = bootstrap_shares(counts.astype(float), seed=seed, replicates=500)
        covered += bool(low[0] <= 0.25 <= high[0])
    assert covered >= 90


def test_intervals_of_a_thousand_questions_take_less_than_a_second() -> None:
    values = np.random.default_rng(6).normal(-5, 30, (1000, 32))
    for call in (lambda: bootstrap_curve(values), lambda: bootstrap(values, centre), lambda: bootstrap_shares(-values)):
        began = time.process_time()
        call()
        assert time.process_time() - began < 1
