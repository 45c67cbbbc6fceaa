"""Tracing: what the table holds, what is left out and said so, and a map that can be written and read again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.flow import plausible_flow
from helpers.micro import BALL_BLUE, BALL_RED, BLANK, SEEKER, micro_model, micro_prompt
from helpers.models import tiny_llava_next_video
from helpers.prompts import tiny_model, tiny_prompt
from helpers.tokenizer import tiny_tokenizer

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.flow.table import FlowRow
from videolens.interventions.layer_sets import window_layers
from videolens.model.vision.pixels import PixelSettings

DIRECT = ("cross-frame", "video -> question", "video -> last", "question -> last")


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return tiny_model()


@pytest.fixture(scope="module")
def prompts(model: vl.HookedVideoTransformer) -> list[vl.Prompt]:
    """Six prompts: by the model's own lights four are answered rightly and two wrongly."""
    made = []
    for seed in range(6):
        prompt = tiny_prompt(model, seed=seed, answer=0)
        first = int(model(prompt)[0, -1].argmax())
        options = (first, (first + 1) % model.cfg.d_vocab)
        made.append(replace(prompt, option_tokens=options, answer_token=options[seed % 3 == 2]))
    return made


@pytest.fixture(scope="module")
def flow(model: vl.HookedVideoTransformer, prompts: list[vl.Prompt]) -> vl.FlowMap:
    return vl.trace_flow(model, prompts, progress=False)


def test_every_number_is_that_of_a_plain_hooked_forward(
    model: vl.HookedVideoTransformer, prompts: list[vl.Prompt], flow: vl.FlowMap
) -> None:
    table = flow.to_dataframe()
    assert tuple(table.columns) == FlowRow._fields
    prompt, rows = prompts[0], table[table["question"] == "prompt 0"]
    base = model(prompt)[0, -1]
    answer, right, wrong = int(base.argmax()), *prompt.option_tokens
    assert len(rows) == len(vl.ROUTES) * 3
    for row in rows.itertuples():
        knockout = vl.Knockout.route(row.route, layers=window_layers(row.layer, 1, 3))
        logits = model.run_with_hooks(prompt, fwd_hooks=knockout.hooks(prompt))[0, -1]
        p_base, p_knockout = float(base.softmax(-1)[answer]), float(logits.softmax(-1)[answer])
        assert (row.p_base, row.p_knockout) == pytest.approx((p_base, p_knockout), abs=1e-5)
        assert row.change_percent == pytest.approx((p_knockout - p_base) / p_base * 100, abs=1e-2)
        assert row.answer == str(answer) and row.answer_knockout == str(int(logits.argmax())) and row.correct
        assert row.correct_knockout == (int(logits.argmax()) == right)
        assert (row.p_correct_base, row.p_correct_knockout) == pytest.approx(
            (float(base.softmax(-1)[right]), float(logits.softmax(-1)[right])), abs=1e-5
        )
        assert row.logit_diff_base == pytest.approx(float(base[right] - base[wrong]), abs=1e-3)
        assert row.logit_diff_knockout == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-3)
    assert table["change_percent"].abs().max() > 10, "in this model the routes matter"
    assert set(rows["correct_knockout"]) == {True, False}, "some cuts turn the answer wrong, some do not"


def test_which_questions_are_kept_and_that_the_others_are_recorded(
    model: vl.HookedVideoTransformer, prompts: list[vl.Prompt], flow: vl.FlowMap
) -> None:
    wrong = vl.trace_flow(model, prompts, routes=DIRECT, samples="wrong", progress=False)
    everything = vl.trace_flow(model, prompts, routes=DIRECT, samples="all", progress=False)
    assert (flow.n, wrong.n, everything.n) == (4, 2, 6)
    assert all(each.settings.n_asked == 6 for each in (flow, wrong, everything))
    assert flow.skipped().to_dict("records") == [
        {"task": "", "route": "all", "reason": "answered wrongly", "questions": 2}
    ]
    assert {skip.question for skip in wrong.settings.skipped} == set(flow.table["question"])
    assert not wrong.table["correct"].any() and everything.table["correct"].sum() == 4 * len(DIRECT) * 3
    # a wrong answer is followed by its own probability, whatever is right
    assert (wrong.table["p_base"] > 1 / model.cfg.d_vocab).all() and (wrong.table["logit_diff_base"] < 0).all()
    assert (wrong.table["p_correct_base"] < wrong.table["p_base"]).all()


def test_a_route_that_a_prompt_does_not_have_is_skipped_and_recorded(
    model: vl.HookedVideoTransformer, prompts: list[vl.Prompt]
) -> None:
    open_ended = tiny_prompt(model, seed=9, options=False)
    flow = vl.trace_flow(model, [prompts[0], open_ended], samples="all", progress=False)
    assert set(flow.table.loc[flow.table["question"] == "prompt 1", "route"]) == {
        route for route in vl.ROUTES if "option" not in route
    }
    assert {(s.question, s.route) for s in flow.settings.skipped} == {
        ("prompt 1", route) for route in vl.ROUTES if "option" in route
    }
    assert all("this prompt has no options" in skip.reason for skip in flow.settings.skipped)
    rest = flow.table[flow.table["question"] == "prompt 1"]
    assert rest["correct"].isna().all() and rest["logit_diff_base"].isna().all()
    assert rest["correct_knockout"].isna().all() and rest["p_correct_base"].isna().all()
    assert len(flow.changes("true option -> last")) == 1 and len(flow.changes("stem -> last")) == 2


def test_a_batch_counts_as_several_and_a_generator_will_do(
    model: vl.HookedVideoTransformer, prompts: list[vl.Prompt]
) -> None:
    batch = tiny_prompt(model, rows=2)
    flow = vl.trace_flow(model, (p for p in [batch, prompts[0]]), routes=DIRECT, samples="all", progress=False)
    assert list(flow.table["question"].unique()) == ["prompt 0", "prompt 1", "prompt 2"]
    alone = vl.trace_flow(model, batch[1], routes=DIRECT, samples="all", progress=False)
    mine = flow.table.loc[flow.table["question"] == "prompt 1", "p_knockout"]
    assert np.allclose(mine, alone.table["p_knockout"], atol=1e-5)


def test_the_model_solved_by_hand_has_the_flow_it_was_built_with() -> None:
    """Frame 0 → frame 1 in layer 0, video → question in layer 1, question → last in layer 2, and nothing else."""
    model = micro_model()
    prompt = micro_prompt(model, (BALL_RED, BLANK), (SEEKER, BLANK))
    other = micro_prompt(model, (BALL_BLUE, BLANK), (SEEKER, BLANK))
    assert int(model(prompt)[0, -1].argmax()) == prompt.answer_token
    assert int(model(other)[0, -1].argmax()) != other.answer_token
    flow = vl.trace_flow(model, [prompt, other], routes=DIRECT, window=1, progress=False)
    assert flow.n == 1 and flow.settings.skipped[0].reason == "answered wrongly"
    where = {route: np.abs(flow.changes(route)[0]) > 1 for route in DIRECT}
    assert {route: at.nonzero()[0].tolist() for route, at in where.items()} == {
        "cross-frame": [0],
        "video -> question": [1],
        "video -> last": [],
        "question -> last": [2],
    }
    assert [flow.centre(route).value for route in ("cross-frame", "video -> question", "question -> last")] == [0, 1, 2]
    # without the colour all six tokens are alike: from e² / (e² + 5) to 1/6
    p_base = np.exp(2) / (np.exp(2) + 5)
    assert flow.table["p_base"].iloc[0] == pytest.approx(p_base, abs=1e-5)
    layer, peak = flow.peak("question -> last")
    assert layer == 2 and peak.value == pytest.approx((1 / 6 - p_base) / p_base * 100, abs=1e-2)


def test_windows_scale_with_depth_and_are_written_down(
    model: vl.HookedVideoTransformer, prompts: list[vl.Prompt], flow: vl.FlowMap
) -> None:
    assert flow.settings.window == 1, "9 of 32 layers, to the scale of three"
    whole = vl.trace_flow(model, prompts[:1], routes=["question -> last"], window=3, progress=False)
    cut = vl.Knockout.route("question -> last", layers=range(3))
    logits = model.run_with_hooks(prompts[0], fwd_hooks=cut.hooks(prompts[0]))[0, -1]
    answer = int(model(prompts[0])[0, -1].argmax())
    assert whole.table["p_knockout"].iloc[1] == pytest.approx(float(logits.softmax(-1)[answer]), abs=1e-5)


def test_a_map_says_how_it_was_made(flow: vl.FlowMap) -> None:
    made = flow.settings
    assert (made.n_layers, made.samples, made.dtype, made.device) == (3, "correct", "float32", "cpu")
    assert {"videolens", "python", "torch", "transformers", "transformer-lens"} <= set(made.versions)
    assert "4 of 6 questions" in repr(flow)


def test_saved_and_loaded_is_the_same(flow: vl.FlowMap, tmp_path) -> None:
    assert flow.save(tmp_path / "run") == tmp_path / "run"
    again = vl.FlowMap.load(tmp_path / "run")
    assert again.settings == flow.settings
    assert again.table.equals(flow.table) and (again.table.dtypes == flow.table.dtypes).all()
    assert json.loads((tmp_path / "run" / "flow.json").read_text())["window"] == 1
    with pytest.raises(VideolensError, match="already holds a flow map"):
        flow.save(tmp_path / "run")
    flow.save(tmp_path / "run", overwrite=True)
    with pytest.raises(VideolensError, match=r"flow\.parquet is missing"):
        vl.FlowMap.load(tmp_path)


def test_the_summary_has_every_task_and_all_of_them_with_intervals() -> None:
    flow = plausible_flow(n=20, tasks=("action antonym", "object count"))
    table = flow.summary()
    assert len(table) == 3 * 11 and set(table["task"]) == {"all", *flow.tasks}
    for name in ("effect_percent", "peak_percent"):
        low, high = (table[name.replace("percent", end)] for end in ("low", "high"))
        assert (low <= table[name]).all() and (table[name] <= high).all()
    row = table[(table["task"] == "all") & (table["route"] == "question -> last")].iloc[0]
    assert row["n"] == 40 and row["peak_layer"] in (8, 9) and row["peak_percent"] < -30
    assert row["centre_low"] <= row["centre"] <= row["centre_high"] and 8 < row["centre"] < 9
    curve = flow.curve("question -> last")
    assert curve.n == 40 and curve.mean[row["peak_layer"]] == pytest.approx(row["peak_percent"])
    assert flow.centre("question -> last") == flow.centre("question -> last"), "seeded"


def test_a_table_that_contradicts_itself_is_refused(flow: vl.FlowMap) -> None:
    table = flow.to_dataframe()
    cases = {
        r"has the columns.*\['p_correct_base'\] are missing.*made anew": table.drop(columns="p_correct_base"),
        "has no row": table[:0],
        "layers 0 … 2 in order": table[1:],
        "are there twice": table.iloc[[0, 1, 2, 0, 1, 2]],
        "change_percent is not": table.assign(change_percent=0.0),
        "outside 0 … 1": table.assign(p_knockout=float("nan")),
    }
    for says, wrong in cases.items():
        with pytest.raises(VideolensError, match=says):
            vl.FlowMap(wrong, flow.settings)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"routes": ["video -> las"]}, SelectionError, "did you mean 'video -> last'"),
        ({"routes": "cross-frame"}, VideolensError, "give a list of routes"),
        ({"routes": []}, VideolensError, "at least one route"),
        ({"routes": ["cross-frame", "cross-frame"]}, VideolensError, "each once"),
        ({"window": 4}, VideolensError, "window of 4 layers does not fit a model of 3"),
        ({"window": 0}, VideolensError, "window of 0 layers"),
    ],
)
def test_misuse_is_one_clear_error_before_anything_runs(model, prompts, monkeypatch, options, error, says) -> None:
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(error, match=says):
        vl.trace_flow(model, prompts, progress=False, **options)


def test_nothing_left_is_an_error_that_says_why(model: vl.HookedVideoTransformer, prompts: list[vl.Prompt]) -> None:
    with pytest.raises(VideolensError, match="no questions: give"):
        vl.trace_flow(model, [], progress=False)
    with pytest.raises(VideolensError, match=r"none of the 1 questions.*answered wrongly.*samples='all'"):
        vl.trace_flow(model, [prompts[2]], progress=False)
    with pytest.raises(VideolensError, match="the right answer is not known"):
        vl.trace_flow(model, tiny_prompt(model, answer=None), progress=False)
    with pytest.raises(SelectionError, match=r"no question has the routes \['stem -> true option'\].*no options"):
        bare = tiny_prompt(model, options=False)
        vl.trace_flow(model, bare, routes=["cross-frame", "stem -> true option"], samples="all", progress=False)


def test_hooks_are_gone_after_a_trace(model: vl.HookedVideoTransformer, flow: vl.FlowMap) -> None:
    assert not any(point.fwd_hooks or point._forward_hooks for point in model.hook_dict.values())
    assert torch.is_grad_enabled()


def test_questions_become_prompts_and_keep_their_names() -> None:
    model = vl.HookedVideoTransformer.from_hugging_face(
        tiny_llava_next_video(), tokenizer=tiny_tokenizer(), pixels=PixelSettings(size=16, crop=(16, 16))
    )
    video = vl.Video.from_array(torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8), fps=2.0, n_frames=2)
    first = vl.Question(video, "where does it move ?", ["left", "right"], "left", task="moving", id="q")
    questions = [first, replace(first, task="direction")]
    flow = vl.trace_flow(model, questions, samples="all", progress=False)
    assert flow.tasks == ["moving", "direction"] and flow.n == 2 and flow.routes == list(vl.ROUTES)
    assert flow.changes("cross-frame", task="moving").shape == (1, 3)
    answer = int(model.chosen(model(model.prompt(first))[0, -1]))
    assert set(flow.table["answer"]) == {model.tokenizer.decode([answer]).strip()}
    with pytest.raises(VideolensError, match="question 'q' of task 'moving' is there twice"):
        vl.trace_flow(model, [first, first], samples="all", progress=False)
    with pytest.raises(SelectionError, match="did you mean 'moving'"):
        flow.changes("cross-frame", task="movin")
