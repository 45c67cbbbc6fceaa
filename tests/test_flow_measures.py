"""Accuracy and other measures beside the followed answer's probability; questions in groups; answers in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.flow import TASKS, plausible_flow
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import LETTERS, letter_model

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.flow.measures import MEASURES
from videolens.experiments.flow.split import FlowSplit

CROSS, OUT = "cross-frame", "question -> last"


@pytest.fixture(scope="module")
def flow() -> vl.FlowMap:
    return plausible_flow(n=6, tasks=TASKS[:2], samples="all")


@pytest.fixture(scope="module")
def four() -> vl.FlowMap:
    """Four questions, one route, two knockouts, every number chosen: the last question's right answer is not known."""
    flow = plausible_flow(n=4, tasks=TASKS[:1], style="halves", samples="all")
    table = flow.table[flow.table["route"] == CROSS].reset_index(drop=True)
    nan = float("nan")
    rows = {
        "p_base": [0.8, 0.8, 0.5, 0.5, 0.25, 0.25, 0.9, 0.9],
        "p_knockout": [0.4, 0.8, 0.6, 0.5, 0.125, 0.375, 0.9, 0.9],
        "p_correct_base": [0.8, 0.8, 0.5, 0.5, 0.2, 0.2, nan, nan],
        "p_correct_knockout": [0.4, 0.8, 0.6, 0.5, 0.5, 0.1, nan, nan],
        "logit_diff_base": [3, 3, 1, 1, -1, -1, nan, nan],
        "logit_diff_knockout": [-1, 3, 2, 1, 1, -2, nan, nan],
    }
    table = table.assign(**{name: np.array(values, dtype=float) for name, values in rows.items()})
    table["change_percent"] = (table["p_knockout"] - table["p_base"]) / table["p_base"] * 100
    table["correct"] = np.array([1, 1, 1, 1, 0, 0, None, None], dtype=object)
    table["correct_knockout"] = np.array([0, 1, 1, 1, 0, 0, None, None], dtype=object)
    return vl.FlowMap(table.astype({"correct": "boolean", "correct_knockout": "boolean"}), flow.settings)


def test_every_measure_by_hand(four: vl.FlowMap) -> None:
    expected = {
        "answer": [[-50, 0], [20, 0], [-50, 50], [0, 0]],
        "correct option": [[-40, 0], [10, 0], [30, -10]],
        "correct option, relative": [[-80, 0], [20, 0], [60, -20]],  # of their mean, 0.5
        "accuracy": [[-100, 0], [0, 0], [0, 0]],
        "accuracy among options": [[-100, 0], [0, 0], [100, 0]],
        "logit difference": [[-4, 0], [1, 0], [2, -1]],
        "logit difference, relative": [[-400, 0], [100, 0], [200, -100]],  # of their mean, 1
    }
    assert set(expected) == set(MEASURES)
    for measure, values in expected.items():
        assert np.allclose(four.changes(CROSS, measure=measure), values)
        curve = four.curve(CROSS, measure=measure)
        assert (curve.n, curve.unknown) == (len(values), 4 - len(values)), "what is not known is left out, and said"
        assert np.allclose(curve.mean, np.mean(values, axis=0))
        assert four.effect(CROSS, measure=measure).value == pytest.approx(np.mean(values))
        layer, peak = four.peak(CROSS, measure=measure)
        assert peak.value == pytest.approx(np.mean(values, axis=0).min()) and layer in (0, 6)
    assert four.by_question(CROSS, measure="accuracy").shape == (4, 2)


def test_accuracy_by_hand(four: vl.FlowMap) -> None:
    found = four.accuracy(CROSS)
    assert (found.kind, found.n, found.unknown, found.layers) == ("accuracy", 3, 1, (0, 6))
    assert found.unblocked.value == pytest.approx(2 / 3) and found.share.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found.drop.tolist() == pytest.approx([-100 / 3, 0])
    # no answer was lost in the second: of three questions that says little, so far as they can fall or rise
    share = 1 - 0.05 ** (1 / 3)
    assert (found.drop_low[1], found.drop_high[1]) == pytest.approx((-200 / 3 * share, 100 / 3 * share))
    assert (found.low < found.share).all() and (found.share < found.high).all()
    among = four.accuracy(CROSS, among="options")
    assert among.share.tolist() == pytest.approx([2 / 3, 2 / 3]) and among.drop.tolist() == pytest.approx([0, 0])
    assert among.drop_low[0] < 0 < among.drop_high[0], "one lost, one won: no drop on average, but a spread"
    table = found.to_dataframe()
    assert table["n"].tolist() == [3, 3] and table["drop_points"].tolist() == found.drop.tolist()
    kinds = {
        samples: vl.FlowMap(four.table, replace(four.settings, samples=samples)).accuracy(CROSS).kind
        for samples in ("correct", "wrong")
    }
    assert kinds == {"correct": "share that stays right", "wrong": "share that turns right"}


def test_no_accuracy_without_a_right_answer(four: vl.FlowMap) -> None:
    alone = vl.FlowMap(four.table[6:].reset_index(drop=True), four.settings)
    with pytest.raises(VideolensError, match="the right answer is known, so there is no accuracy"):
        alone.accuracy(CROSS)
    with pytest.raises(VideolensError, match="'accuracy' is not known of any of the 1 questions along 'cross-frame'"):
        alone.curve(CROSS, measure="accuracy")
    with pytest.raises(VideolensError, match="did you mean 'accuracy'"):
        four.changes(CROSS, measure="acuracy")
    with pytest.raises(VideolensError, match=r"'option'.*did you mean 'options'"):
        four.accuracy(CROSS, among="option")
    with pytest.raises(SelectionError, match="'cross-frame'"):
        four.accuracy("crossframe")


def test_a_summary_names_the_unit(flow: vl.FlowMap) -> None:
    table = flow.summary(measure="accuracy")
    assert {"effect_points", "peak_points"} <= set(table.columns) and "effect_percent" not in table.columns
    row = table[(table["task"] == "all") & (table["route"] == OUT)].iloc[0]
    assert row["peak_points"] == pytest.approx(flow.accuracy(OUT).drop.min()) and row["peak_points"] < -20


@pytest.mark.parametrize("measure", ["accuracy", "logit difference"])
def test_figures_of_other_measures(flow: vl.FlowMap, measure: str, tmp_path) -> None:
    base = plausible_flow("shapes-image", n=6, tasks=TASKS[:2], from_video=0.0, seed=1)
    for kind in ("routes", "heat map"):
        figure = flow.figure(kind, base=base, measure=measure)
        figure.savefig(tmp_path / "figure.png")
        label = MEASURES[measure].label
        assert any(label in axes.get_ylabel() for axes in figure.axes)
        said = figure.get_supxlabel()
        assert ("shapes-image: of questions chosen for their answer" in said) == (measure == "accuracy")
    line = next(line for line in flow.figure("routes", measure=measure).axes[-1].lines if len(line.get_xdata()) == 12)
    assert np.allclose(line.get_ydata(), flow.curve("video -> question", measure=measure).mean)


# -- questions in groups -----------------------------------------------------------------------------------------------


def test_every_question_is_in_one_group(four: vl.FlowMap) -> None:
    split = four.split(CROSS)
    assert split.table["effect_percent"].tolist() == pytest.approx([-25, 10, 0, 0])
    assert split.table["group"].tolist() == ["falls", "rises", "unchanged", "unchanged"]
    assert split.counts == {"falls": 1, "rises": 1, "unchanged": 2, "not traced": 0}
    peaks = four.split(CROSS, by="peak").table
    assert peaks["effect_percent"].tolist() == pytest.approx([-50, 20, -50, 0])
    rising = split.group("rises")
    assert rising.n == 1 and np.allclose(rising.changes(CROSS), [[20, 0]])
    assert rising.skipped()["questions"].sum() == 3 and "not in the group 'rises'" in rising.skipped()["reason"][0]
    assert split.to_dataframe().equals(split.table) and "'falls': 1" in repr(split)


def test_groups_that_contradict_themselves_are_refused(four: vl.FlowMap) -> None:
    split = four.split(CROSS)
    with pytest.raises(VideolensError, match="sign of its effect contradicts"):
        FlowSplit(four, CROSS, "mean", split.table.assign(group="falls"))
    with pytest.raises(VideolensError, match="every question of its map once: 3 of 4"):
        FlowSplit(four, CROSS, "mean", split.table[1:])
    with pytest.raises(VideolensError, match="no question is in the group 'not traced'"):
        split.group("not traced")
    with pytest.raises(SelectionError, match="did you mean 'mean'"):
        four.split(CROSS, by="means")


def test_a_question_without_the_route_is_in_a_group_of_its_own() -> None:
    model = tiny_model()
    prompts = [tiny_prompt(model, seed=1), tiny_prompt(model, seed=2, options=False)]
    flow = vl.trace_flow(model, prompts, routes=[CROSS, "video -> true option"], samples="all", progress=False)
    split = flow.split("video -> true option")
    assert split.counts["not traced"] == 1 and split.table["group"].tolist()[1] == "not traced"
    assert split.group("not traced").routes == [CROSS]


def test_the_figure_of_groups_has_both_and_their_counts(tmp_path) -> None:
    flow = plausible_flow(n=8, tasks=TASKS[:2], samples="wrong")
    table = flow.to_dataframe()
    up = (table["route"] == CROSS) & table["question"].str.endswith(("1", "3", "5"))
    table.loc[up, "p_knockout"] = table["p_base"] * 1.005
    table["change_percent"] = (table["p_knockout"] - table["p_base"]) / table["p_base"] * 100
    split = vl.FlowMap(table, flow.settings).split()
    assert split.counts == {"falls": 10, "rises": 6, "unchanged": 0, "not traced": 0}
    figure = split.figure()
    figure.savefig(tmp_path / "figure.png")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["cutting lowers it (n = 10)", "cutting raises it (n = 6)"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [CROSS, "video → question", "question → last"]
    lines = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 12]
    assert np.allclose(lines[1], 0.5) and lines[0].min() < -10
    assert "by construction" in figure.get_supxlabel() and "answered wrongly" in figure.get_supxlabel()
    with pytest.raises(SelectionError, match="did you mean 'stem -> last'"):
        split.figure(routes=["stem -> lst"])


# -- answers in words --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worded() -> tuple[vl.HookedVideoTransformer, list[vl.Question]]:
    """A model with a tokenizer, and an open-ended question whose answer it gets right, wrong, and cannot be told."""
    model = letter_model()
    video = vl.Video.from_array(torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8), fps=2.0, n_frames=2)
    asked = vl.Question(video, "where does it move ?", ["left", "right"], "left", completion="it moves", id="a")
    said = model.tokenizer.decode([int(model(model.prompt(asked.open_ended()))[0, -1].argmax())])
    assert said in LETTERS
    other = "A" if said != "A" else "B"
    right = replace(asked, options=[said, other], answer=said, id="right").open_ended()
    wrong = replace(asked, options=[said, other], answer=other, id="wrong").open_ended()
    alike = replace(asked, options=[said, f"{said} {other}"], answer=said, id="alike").open_ended()
    return model, [right, wrong, alike]


def test_open_ended_answers_are_followed_by_their_first_token(worded) -> None:
    model, questions = worded
    flow = vl.trace_flow(model, questions, samples="all", progress=False)
    one = flow.table.groupby("question", sort=False).first()
    assert one["correct"]["right"] and not one["correct"]["wrong"]
    assert one["correct"].isna().tolist() == one["p_correct_base"].isna().tolist() == [False, False, True]
    assert one["p_base"]["right"] == one["p_correct_base"]["right"] > one["p_correct_base"]["wrong"]
    ahead = one["logit_diff_base"]
    assert ahead["right"] == pytest.approx(-ahead["wrong"]) and ahead["right"] > 0
    assert not any("option" in route for route in flow.routes), flow.routes
    skipped = flow.skipped()
    assert set(skipped["route"]) == {route for route in vl.ROUTES if "option" in route}
    assert "which are left out" in flow.figure("routes", measure="accuracy").get_supxlabel()
    assert flow.accuracy(CROSS).n == 2 and flow.accuracy(CROSS).unknown == 1
    kept = vl.trace_flow(model, questions, routes=[CROSS], progress=False)
    assert list(kept.table["question"].unique()) == ["right"]
    reasons = {skip.question: skip.reason for skip in kept.settings.skipped}
    assert reasons["alike"] == "another of its answers begins with the right one's token"
