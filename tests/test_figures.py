"""Figures show what the map holds: lines and bands at the right places, counts, layers from 1, no global state."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.flow import TASKS, plausible_flow
from matplotlib import rcParams
from matplotlib.text import Text

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.flow.figure import KINDS
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS


@pytest.fixture(scope="module")
def flow() -> vl.FlowMap:
    return plausible_flow(n=3, more_routes=INTO_FALSE_OPTIONS)


@pytest.fixture(scope="module")
def base() -> vl.FlowMap:
    return plausible_flow("shapes-image", n=3, from_video=0.02, samples="all", more_routes=INTO_FALSE_OPTIONS, seed=1)


def words(figure) -> str:
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " | ".join(found)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_with_and_without_a_second_model(
    flow: vl.FlowMap, base: vl.FlowMap, kind: str, tmp_path
) -> None:
    for options in ({}, {"base": base}, {"tasks": ["moving direction"]}, {"tasks": list(TASKS[:2]), "base": base}):
        figure = flow.figure(kind, **options)
        figure.savefig(tmp_path / "figure.png")
        said = words(figure)
        assert "n = 3" in said or "n = 15" in said or "n = 6" in said, "every panel says how many questions it shows"
        assert "from 1" in said and "window of 3 of 12" in said and "shapes: answered rightly" in said
        assert ("shapes-image: all" in said) == ("base" in options)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_line_is_the_mean_and_its_band_the_interval_with_layers_from_one(flow: vl.FlowMap) -> None:
    axes = flow.figure("routes", tasks=["object count"]).axes[0]
    curve = flow.curve("video -> question", task="object count")
    line = next(line for line in axes.lines if len(line.get_xdata()) == 12)
    assert list(line.get_xdata()) == list(range(1, 13))
    assert np.allclose(line.get_ydata(), curve.mean)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(curve.low.min()) and band[:, 1].max() == pytest.approx(curve.high.max())


def test_the_heat_map_is_layer_by_route(flow: vl.FlowMap) -> None:
    axes = flow.figure().axes[0]
    image = axes.images[0]
    assert image.get_array().shape == (13, 12)
    assert np.allclose(image.get_array()[3], flow.changes("question -> last").mean(axis=0))
    assert [label.get_text() for label in axes.get_yticklabels()][3] == "question → last"
    assert image.get_extent() == [0.5, 12.5, 12.5, -0.5], "the first layer's cell is centred on 1"


def test_a_deep_model_and_a_single_layer_have_sensible_ticks() -> None:
    for n_layers, ticks in ((32, [1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 32]), (1, [1]), (3, [1, 2, 3])):
        flow = plausible_flow(n_layers=n_layers, n=2, tasks=TASKS[:1])
        assert list(flow.figure("routes").axes[0].get_xticks()) == ticks


def test_noise_is_not_stretched_to_fill_the_panel(base: vl.FlowMap) -> None:
    many = plausible_flow("shapes-image", n=60, from_video=0.0, samples="all", tasks=TASKS[:2])
    low, _ = many.figure("cross-frame").axes[0].get_ylim()
    assert low == -10
    few, _ = base.figure("cross-frame").axes[0].get_ylim()
    assert few < -10, "three questions of a task leave much open, and the band shows it"


def test_misuse_is_one_clear_error(flow: vl.FlowMap) -> None:
    with pytest.raises(SelectionError, match="did you mean 'routes'"):
        flow.figure("route")
    with pytest.raises(SelectionError, match="did you mean 'object count'"):
        flow.figure("routes", tasks=["object counts"])
    few = vl.FlowMap(flow.table[flow.table["route"] == "cross-frame"].reset_index(drop=True), flow.settings)
    with pytest.raises(VideolensError, match="traced none of"):
        few.figure("options")
    with pytest.raises(VideolensError, match="'cross-frame'"):
        other = vl.FlowMap(flow.table[flow.table["route"] != "cross-frame"].reset_index(drop=True), flow.settings)
        other.figure("cross-frame")


def test_ten_tasks_fit_and_can_be_told_apart(flow: vl.FlowMap) -> None:
    table, names = (
        flow.table[flow.table["task"] == "object count"],
        [f"A task with a rather long name {i}" for i in range(10)],
    )
    many = vl.FlowMap(pd.concat([table.assign(task=name) for name in names], ignore_index=True), flow.settings)
    figure = many.figure("cross-frame")
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1, "the key is cut off"
    assert len({line.get_color() for line in figure.legends[0].get_lines()}) == 10
    figure = vl.FlowMap(
        table.assign(task="A task whose name is longer than its panel is wide, whatever the panel"), flow.settings
    ).figure("routes")
    figure.draw_without_rendering()
    left, right = (getattr(figure.axes[0], f"_{side}_title").get_window_extent() for side in ("left", "right"))
    assert not left.overlaps(right), "title and count lie on each other"


def test_drawing_never_touches_pyplot() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from helpers.flow import plausible_flow; "
        "plausible_flow(n=2).figure().savefig('/dev/null', format='png'); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "import os; os._exit(0)"  # nothing is left to do, and taking torch apart takes seconds
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_name_with_dollars_is_no_formula(tmp_path) -> None:
    """Neither drawn as one, nor an error where it would not be right."""
    names = ("costs $5 or $6", r"$\frac{1$ and \frac", "a_b^c $$")
    flow = plausible_flow(r"$\model$", n=3, tasks=names, more_routes=INTO_FALSE_OPTIONS)
    for kind in KINDS:
        figure = flow.figure(kind)
        figure.savefig(tmp_path / "figure.png")
        for each in figure.findobj(Text):
            assert "$" not in each.get_text() or each._preprocess_math(each.get_text())[1] is False
    assert "costs $5 or $6" in words(flow.figure("heat map")) or "costs $5" in words(flow.figure("routes"))
    assert rcParams["text.parse_math"], "the user's own figures are as they were"
