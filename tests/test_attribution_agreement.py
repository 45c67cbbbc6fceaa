"""Agreement of scores with exact changes: by hand, and where there is nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from videolens.errors import SelectionError, VideolensError
from videolens.experiments.attribution.agreement import MEASURES, agreement
from videolens.experiments.attribution.result import Attribution, AttributionRow, AttributionSettings


def closed(score: np.ndarray, exact: np.ndarray) -> pd.DataFrame:
    """[question unit] as a table."""
    n, m = score.shape
    names = {"task": "t", "question": np.repeat([f"q{i}" for i in range(n)], m)}
    return pd.DataFrame(names | {"score": score.ravel(), "exact": exact.ravel()})


def drawn(n: int = 12, m: int = 24, *, noise: float = 0.5, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    exact = draw.standard_normal((n, m)) ** 3
    return closed(0.5 * exact + noise * draw.standard_normal((n, m)), exact)


def test_every_measure_by_another_way() -> None:
    table = drawn()
    score, exact = table["score"], table["exact"]
    found = {name: agreement(table, name, top=5, seed=0) for name in MEASURES}
    assert found["spearman"].value == pytest.approx(score.rank().corr(exact.rank()))
    assert found["magnitudes"].value == pytest.approx(score.abs().rank().corr(exact.abs().rank()))
    large = exact.abs() >= exact.abs().median()
    assert found["signs"].value == pytest.approx((np.sign(score) == np.sign(exact))[large].mean())
    assert found["recovered"].value == pytest.approx((score * exact).sum() / (exact**2).sum())
    recalls = []
    for _, rows in table.groupby("question"):
        tops = [set(rows[name].abs().nlargest(5).index) for name in ("score", "exact")]
        recalls.append(len(tops[0] & tops[1]) / 5)
    assert found["recall"].value == pytest.approx(np.mean(recalls))
    assert all(each.low < each.value < each.high and each.n == 12 for each in found.values())


def test_equal_scores_are_perfect_and_reversed_ones_the_opposite() -> None:
    exact = np.random.default_rng(1).standard_normal((8, 20))
    same, opposite = closed(exact, exact), closed(-exact, exact)
    values = {name: agreement(same, name, top=15, seed=0).value for name in MEASURES}
    assert values == pytest.approx(dict.fromkeys(MEASURES, 1.0))
    assert agreement(opposite, "spearman", top=15, seed=0).value == pytest.approx(-1)
    assert agreement(opposite, "signs", top=15, seed=0).value == 0
    assert agreement(same, "signs", top=15, seed=0).low < 0.75, "eight questions may have missed those that differ"


def test_where_there_is_nothing_the_interval_says_so_nineteen_times_in_twenty() -> None:
    wrong = dict.fromkeys(("spearman", "magnitudes"), 0)
    for seed in range(200):
        draw = np.random.default_rng(seed)
        table = closed(draw.standard_normal((20, 12)), draw.standard_normal((20, 12)))
        for name in wrong:
            found = agreement(table, name, top=3, seed=0)
            wrong[name] += not found.low <= 0 <= found.high
    assert max(wrong.values()) <= 20, wrong


def test_no_more_than_a_quarter_of_those_closed_count_as_the_top() -> None:
    exact = np.arange(1.0, 9)[None]
    table = closed(np.array([[8.0, 2, 3, 4, 5, 6, 7, 1]]), exact)
    assert agreement(table, "recall", top=15, seed=0).value == 0.5  # of 8 the two largest, one of which is found


def test_scores_that_do_not_vary_have_no_correlation() -> None:
    table = closed(np.ones((5, 4)), np.random.default_rng(0).standard_normal((5, 4)))
    assert np.isnan(agreement(table, "spearman", top=1, seed=0).value)


def invented() -> Attribution:
    rows = [
        AttributionRow(f"q{q}", "t", layer, None, route, 3, 1.0, 0.1 * (layer + q), 0.2 * layer if layer else np.nan)
        for q in range(4)
        for layer in range(3)
        for route in ("own-part", "part A -> part A")
    ]
    table = pd.DataFrame(rows).astype({"head": "Int64"})
    made = {"method": "layer", "metric": "logit difference", "grain": "routes", "heads": False, "verify": 4}
    return Attribution(table, AttributionSettings(model="m", n_layers=3, n_heads=1, **made))


def test_a_result_gives_agreement_of_all_and_of_each_route() -> None:
    found = invented()
    table = found.agreement()
    assert table["route"].tolist() == ["all", "own-part", "part A -> part A"] and table["units"].tolist() == [16, 8, 8]
    assert table["recall"].isna().tolist() == [False, True, True]
    assert table["spearman"][1] == found.measure("spearman", route="own-part").value
    assert "against 16 exact knockouts: ρ" in repr(found)
    with pytest.raises(SelectionError, match="unknown measure of agreement in this attribution 'pearson'"):
        found.measure("pearson")
    with pytest.raises(SelectionError, match="unknown route in this attribution 'cross-part'"):
        found.measure("spearman", route="cross-part")


def test_a_route_of_which_nothing_was_closed_is_said() -> None:
    found = invented()
    table = found.to_dataframe()
    table.loc[table["route"] == "own-part", "exact"] = np.nan
    with pytest.raises(VideolensError, match="no unit of the route 'own-part' was closed exactly: raise verify="):
        Attribution(table, found.settings).measure("signs", route="own-part")
