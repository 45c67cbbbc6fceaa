"""Every style of cut: the layers it names, exactly, by the engine and by the published procedure; and what a map whose
knockouts are no windows still says, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.engine import N_LAYERS, distance, plain_logits, random_pair
from helpers.flow import TASKS, plausible_flow
from helpers.micro import BALL_RED, BLANK, SEEKER, micro_model, micro_prompt
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.engine import evaluate
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.claims.experiment import check_claims
from videolens.experiments.flow.plan import INTO_FALSE_OPTIONS, route_knockouts
from videolens.interventions.layer_sets import STYLES, WINDOWED, cut_layers

DIRECT = ("cross-frame", "video -> question", "question -> last")
ALL_ROUTES = (*vl.ROUTES, *INTO_FALSE_OPTIONS)

# layers cut, by style, in a model of three layers with windows of one
CUT = {
    "centre": {0: (0,), 1: (1,), 2: (2,)},
    "inverse": {0: (1, 2), 1: (0, 2), 2: (0, 1)},
    "top-down": {0: (0, 1, 2), 1: (1, 2), 2: (2,)},
    "bottom-up": {0: (0,), 1: (0, 1), 2: (0, 1, 2)},
    "first half": {0: (0,)},
    "second half": {1: (1, 2)},
    "halves": {0: (0,), 1: (1, 2)},
}


@pytest.mark.parametrize("style", STYLES)
def test_the_model_solved_by_hand_loses_its_answer_where_its_route_is_cut(style: str) -> None:
    """Frame 0 → frame 1 in layer 0, video → question in layer 1, question → last in layer 2: nothing else matters."""
    model = micro_model()
    prompt = micro_prompt(model, (BALL_RED, BLANK), (SEEKER, BLANK))
    flow = vl.trace_flow(model, prompt, routes=DIRECT, style=style, progress=False)
    p_base, p_guess = np.exp(2) / (np.exp(2) + 5), 1 / 6
    for layer, route in enumerate(DIRECT):
        rows = flow.table[flow.table["route"] == route]
        assert rows["layer"].tolist() == list(CUT[style])
        expected = [p_guess if layer in layers else p_base for layers in CUT[style].values()]
        assert rows["p_knockout"].tolist() == pytest.approx(expected, abs=1e-5)
        assert rows["p_correct_knockout"].tolist() == pytest.approx(expected, abs=1e-5)
        points = flow.curve(route, measure="correct option").mean
        assert points == pytest.approx([(p - p_base) * 100 for p in expected], abs=1e-3)
    assert flow.settings.window == (1 if style in WINDOWED else None) and flow.settings.cuts == CUT[style]


@pytest.mark.parametrize("style", STYLES)
def test_the_engine_is_the_published_procedure_and_plain_hooks(style: str) -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    options = {"routes": ALL_ROUTES, "style": style, "samples": "all", "progress": False}
    exact = vl.trace_flow(model, prompt, **options)
    full = vl.trace_flow(model, prompt, engine="full", **options)
    assert exact.routes == list(ALL_ROUTES) and len(exact.table) == len(ALL_ROUTES) * len(CUT[style])
    for name in ("p_knockout", "p_correct_knockout", "logit_diff_knockout"):
        assert np.allclose(exact.table[name], full.table[name], atol=1e-5)
    assert (exact.table["correct_knockout"] == full.table["correct_knockout"]).all()
    answer = int(model(prompt)[0, -1].argmax())
    for row in exact.table.itertuples():
        cut = vl.Knockout.route(row.route, layers=CUT[style][row.layer])
        logits = model.run_with_hooks(prompt, fwd_hooks=cut.hooks(prompt))[0, -1]
        assert row.p_knockout == pytest.approx(float(logits.softmax(-1)[answer]), abs=1e-5)
        assert row.p_correct_knockout == pytest.approx(float(logits.softmax(-1)[prompt.answer_token]), abs=1e-5)
    assert exact.table["change_percent"].abs().max() > 10, "in this model the cuts matter"


@pytest.mark.parametrize("style", [style for style in STYLES if style != "centre"])
def test_layers_that_do_not_touch_are_cut_together_exactly(style: str) -> None:
    model, prompt = random_pair("grouped heads")
    window = 2 if style in WINDOWED else None
    many, kept, missing = route_knockouts(prompt, ALL_ROUTES, window, N_LAYERS, style=style)
    assert kept == list(ALL_ROUTES) and not missing
    assert len(many) == len(ALL_ROUTES) * len(cut_layers(style, window, N_LAYERS))
    plain, base = plain_logits(model, prompt, many), model(prompt)[0, prompt.tokens["last"][0]].detach()
    assert distance(evaluate(model, prompt, many), plain, base.std()).max() <= 1e-4
    assert distance(plain, base, base.std()).median() >= 1e-2


def test_false_options_are_targets_as_the_true_one_is() -> None:
    model = tiny_model()
    prompt, swapped = tiny_prompt(model, answer=0), tiny_prompt(model, answer=1)
    flows = [
        vl.trace_flow(model, each, routes=[f"video -> {which}"], samples="all", progress=False)
        for each, which in ((prompt, "false options"), (swapped, "true option"))
    ]
    assert np.allclose(flows[0].table["p_knockout"], flows[1].table["p_knockout"], atol=1e-6)
    assert np.abs(flows[0].table["change_percent"]).max() > 0.1
    with pytest.raises(SelectionError, match="no options"):
        bare = tiny_prompt(model, options=False)
        vl.trace_flow(model, bare, routes=INTO_FALSE_OPTIONS, samples="all", progress=False)


def test_a_map_of_another_style_says_so_and_can_be_kept(tmp_path) -> None:
    flow = plausible_flow(style="halves", n=2, tasks=TASKS[:1])
    assert flow.changes("cross-frame").shape == (2, 2) and flow.curve("cross-frame").layers == (0, 6)
    assert flow.peak("question -> last")[0] == 6, "named by the first layer of the half"
    assert "cut: halves" in repr(flow)
    again = vl.FlowMap.load(flow.save(tmp_path))
    assert again.settings == flow.settings and again.table.equals(flow.table)
    assert np.isnan(flow.centre("cross-frame").value) and flow.summary()["centre"].isna().all()
    with pytest.raises(VideolensError, match=r"layers \[0, 6\] in order"):
        vl.FlowMap(flow.table[1:], flow.settings)
    with pytest.raises(VideolensError, match="cuts the first half of the layers, then the second"):
        check_claims(flow)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"style": "center"}, "did you mean 'centre'"),
        ({"style": "bottom-up", "window": 1}, "leave out window=1"),
        ({"style": "inverse", "window": 4}, "window of 4 layers does not fit a model of 3"),
    ],
)
def test_misuse_is_one_clear_error_before_anything_runs(monkeypatch, options, says) -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(VideolensError, match=says):
        vl.trace_flow(model, prompt, progress=False, **options)
    with pytest.raises(VideolensError, match=says):
        vl.plan_flow(model, prompt, **options)


def test_a_plan_counts_the_knockouts_of_its_style() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    assert vl.plan_flow(model, prompt, ["cross-frame", "video -> last"], style="halves").interventions == 4
    assert vl.plan_flow(model, prompt, ["cross-frame"], style="top-down").interventions == 3


@pytest.mark.parametrize(
    ("style", "kind", "ticks"),
    [
        ("inverse", "cross-frame", None),
        ("top-down", "heat map", None),
        ("halves", "heat map", ["1 … 6", "7 … 12"]),
        ("halves", "into the false options", ["1 … 6", "7 … 12"]),
        ("second half", "cross-frame", ["7 … 12"]),
    ],
)
def test_figures_say_what_was_cut(style: str, kind: str, ticks: list[str] | None, tmp_path) -> None:
    flow, base = (
        plausible_flow(name, n=2, style=style, more_routes=INTO_FALSE_OPTIONS, tasks=TASKS[:2], seed=i)
        for i, name in enumerate(("shapes", "shapes-image"))
    )
    figure = flow.figure(kind, base=base)
    figure.savefig(tmp_path / "figure.png")
    said = figure.get_supxlabel()
    assert flow.settings.cut_words in said and "shapes: answered rightly" in said
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == (ticks or [str(layer) for layer in range(1, 13)])
    with pytest.raises(VideolensError, match="cut different layers"):
        flow.figure(kind, base=plausible_flow(n=2, style="bottom-up"))
