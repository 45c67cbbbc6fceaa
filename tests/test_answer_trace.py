"""Answer traces: exact in the micro model, the model's own numbers at the end, two routes to every number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.micro import BALL_RED, BLANK, BLUE, RED, SEEKER, micro_model, micro_prompt
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.answer_trace.experiment import AnswerTraceExperiment
from videolens.experiments.answer_trace.result import TraceRow, TraceSettings
from videolens.experiments.common.asking import Asked, tabulated
from videolens.experiments.common.conditions import conditions_of
from videolens.experiments.common.experiment import check_samples

AFTER = {True: np.exp(2) / (np.exp(2) + 5), False: 1 / 6}
"""The logit of a colour that was taken is 2 after the norm, all other logits are 0; of six tokens."""


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return [q for task in ("moving direction", "object count") for q in vl.load_dataset("shapes", task=task, n=3)]


@pytest.fixture(scope="module")
def trace(shapes: vl.HookedVideoTransformer, questions: list[vl.Question]) -> vl.AnswerTrace:
    return vl.answer_trace(shapes, questions, progress=False)


def micro(colour: int) -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    model = micro_model()
    prompt = replace(micro_prompt(model, (colour, BLANK), (BLANK, SEEKER)), option_tokens=(BLUE, RED))
    return model, prompt


def test_the_micro_model_takes_the_colour_in_its_last_layer() -> None:
    model, prompt = micro(BALL_RED)
    table = vl.answer_trace(model, prompt, progress=False).to_dataframe()
    assert tuple(table.columns) == TraceRow._fields
    assert list(table["option"]) == ["A"] * 3 + ["B"] * 3 and list(table["layer"]) == [0, 1, 2] * 2
    assert list(table["kind"]) == ["false"] * 3 + ["true"] * 3, "B is red, and the answer"
    true, false = (table.loc[table["kind"] == kind, "probability"].to_numpy() for kind in ("true", "false"))
    assert true == pytest.approx([AFTER[False], AFTER[False], AFTER[True]], abs=1e-6)
    assert false == pytest.approx([1 / 6, 1 / 6, 1 / (np.exp(2) + 5)], abs=1e-6)
    assert list(table["top"])[2] == str(RED) and table["correct"].all()


def test_without_the_norm_the_scale_of_the_stream_counts() -> None:
    model, prompt = micro(BALL_RED)
    trace = vl.answer_trace(model, prompt, norm=False, progress=False)
    assert trace.settings.lens == "no norm (published)"
    # having taken a colour, three entries are 4 and the root mean square is 2: the logit is 4, not 2
    assert trace.probabilities()[0, -1] == pytest.approx(np.exp(4) / (np.exp(4) + 5), abs=1e-6)


def test_an_intervention_is_traced_beside_the_clean_model() -> None:
    model, prompt = micro(BALL_RED)
    acting = {
        "last cut": vl.Knockout("stem", "last", layers=[2]),
        "as data": {"route": "video -> stem", "layers": [1]},
        "too late": [vl.Knockout.route("cross-frame", layers=[1, 2]), vl.Knockout("video", "stem", layers=[2])],
    }
    trace = vl.answer_trace(model, prompt, interventions=acting, progress=False)
    assert trace.conditions == ["clean", "last cut", "as data", "too late"]
    at_the_end = {condition: trace.probabilities(condition=condition)[0, -1] for condition in trace.conditions}
    expected = {"clean": AFTER[True], "last cut": 1 / 6, "as data": 1 / 6, "too late": AFTER[True]}
    assert at_the_end == pytest.approx(expected, abs=1e-6)
    assert "layers 2–3" in trace.settings.interventions["too late"]
    assert not any(point.fwd_hooks for point in model.hook_dict.values()), "nothing listens afterwards"


def test_the_last_layer_is_the_models_own_and_every_layer_the_caches(
    shapes: vl.HookedVideoTransformer, questions: list[vl.Question], trace: vl.AnswerTrace
) -> None:
    question = questions[0]
    prompt = shapes.prompt(question)
    with torch.no_grad():
        logits, cache = shapes.run_with_cache(prompt, names_filter=lambda name: name.endswith("resid_post"))
        rows = trace.table[trace.table["question"] == question.id]
        for i, option in enumerate("ABCD"):
            token = prompt.option_tokens[i]
            mine = rows.loc[rows["option"] == option, "probability"].to_numpy()
            own = [
                float(shapes.unembed(shapes.ln_final(cache["resid_post", layer][:, -1])).softmax(-1)[0, token])
                for layer in range(12)
            ]
            assert mine == pytest.approx(own, abs=1e-6)
            assert mine[-1] == pytest.approx(float(logits[0, -1].softmax(-1)[token]), abs=1e-6)
    assert (rows.loc[rows["kind"] == "true", "option"] == question.letter).all()


def test_the_answer_forms_late_in_the_bundled_model(trace: vl.AnswerTrace) -> None:
    assert trace.n == 6 and trace.tasks == ["moving direction", "object count"]
    true, false = trace.curve("true"), trace.curve("false", task="object count")
    assert true.n == 6 and false.n == 3
    assert true.mean[-1] > 0.9 and false.mean[-1] < 0.05 and true.mean[5] < 0.5
    rise = trace.rise()
    assert rise.layer.value == np.diff(true.mean).argmax() + 1 >= 8
    assert rise.layer.low <= rise.layer.value <= rise.layer.high
    assert rise.amount.value == pytest.approx(np.diff(true.mean).max()) and rise.amount.low <= rise.amount.high
    summary = trace.summary()
    assert list(summary["task"].unique()) == ["all", *trace.tasks]
    assert summary.loc[0, "last"] == pytest.approx(true.mean[-1]) and summary.loc[0, "n"] == 6


def test_false_options_are_averaged_within_a_question(trace: vl.AnswerTrace) -> None:
    one = trace.table[(trace.table["question"] == trace.table["question"][0]) & (trace.table["layer"] == 7)]
    expected = one.loc[one["kind"] == "false", "probability"].mean()
    assert trace.probabilities("false")[0, 7] == pytest.approx(expected)


def test_open_ended_questions_are_followed_in_words(
    shapes: vl.HookedVideoTransformer, questions: list[vl.Question]
) -> None:
    asked = [question.open_ended() for question in questions[:2]]
    trace = vl.answer_trace(shapes, asked, samples="all", progress=False)
    first = trace.table[trace.table["question"] == asked[0].id]
    of_choices = first[first["kind"] != "model's answer"]
    assert set(of_choices["option"]) == set(asked[0].alternatives)
    assert set(of_choices.loc[of_choices["kind"] == "true", "option"]) == {asked[0].answer}
    unknown = vl.answer_trace(
        shapes, replace(asked[0], answer=None, alternatives=(), reversed_answer=None), samples="all", progress=False
    )
    assert unknown.kinds == ["model's answer"] and unknown.table["correct"].isna().all()
    assert unknown.probabilities("model's answer")[0, -1] == pytest.approx(unknown.table["top_probability"].iloc[-1])


def test_samples_and_what_is_left_out() -> None:
    model = tiny_model()
    prompts = []
    for seed in range(3):
        prompt = tiny_prompt(model, seed=seed, answer=0)
        said = int(model(prompt)[0, -1].argmax())
        options = (said, (said + 1) % model.cfg.d_vocab)
        prompts.append(replace(prompt, option_tokens=options, answer_token=options[seed == 1]))
    prompts.append(tiny_prompt(model, seed=3, answer=None))
    right, wrong, every = (
        vl.answer_trace(model, prompts, samples=samples, progress=False) for samples in ("correct", "wrong", "all")
    )
    assert (right.n, wrong.n, every.n) == (2, 1, 4) and right.settings.n_asked == 4
    assert set(right.skipped()["reason"]) == {"answered wrongly", "the right answer is not known"}
    assert wrong.table["correct"].eq(False).all() and set(wrong.table["question"]) == {"prompt 1"}
    assert "unknown" in every.kinds
    same = replace(prompts[0], option_tokens=(prompts[0].answer_token,) * 2)
    with pytest.raises(VideolensError, match="same token"):
        vl.answer_trace(model, same, progress=False)


def test_what_a_question_does_not_have_is_skipped_and_said(shapes, questions) -> None:  # type: ignore[no-untyped-def]
    asked = [questions[0], questions[1].open_ended()]
    acting = {"options cut": vl.Knockout("options", "last", layers=range(12))}
    trace = vl.answer_trace(shapes, asked, interventions=acting, samples="all", progress=False)
    assert trace.skipped()[["condition", "questions"]].to_dict("records") == [
        {"condition": "options cut", "questions": 1}
    ]
    with pytest.raises(SelectionError, match="no question has what the interventions"):
        vl.answer_trace(shapes, asked[1:], interventions=acting, samples="all", progress=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"interventions": {"clean": vl.Knockout("video", "last", 0)}}, "nothing changed"),
        ({"interventions": {"deep": vl.Knockout("video", "last", 12)}}, "layer"),
        ({"interventions": {"odd": {"route": "video -> last"}}}, "layers"),
        ({"interventions": {"odd": {"route": "video -> lost", "layers": [1]}}}, "unknown route"),
    ],
)
def test_bad_settings_are_one_error_before_anything_runs(shapes, settings, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(VideolensError, match=said):
        AnswerTraceExperiment(shapes, **settings)


def test_values_of_the_wrong_type_too(shapes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(VideolensError, match="give each a name"):
        conditions_of(shapes, vl.Knockout("video", "last", 0))
    with pytest.raises(VideolensError, match="unknown choice of samples 'right'"):
        check_samples("right")


def test_parts_put_together_are_the_whole(shapes, questions, trace) -> None:  # type: ignore[no-untyped-def]
    experiment = AnswerTraceExperiment(shapes)
    parts = []
    for question in questions:
        found = experiment.ask(shapes.prompt(question), question.id, question.task, lambda share: None)
        assert isinstance(found, Asked) and not found.skipped
        parts.append(tabulated(experiment, found.rows))
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), trace.table)


def test_saved_and_read_again(trace: vl.AnswerTrace, tmp_path) -> None:  # type: ignore[no-untyped-def]
    trace.save(tmp_path / "trace")
    again = vl.AnswerTrace.load(tmp_path / "trace")
    pd.testing.assert_frame_equal(again.table, trace.table)
    assert again.settings == trace.settings and again.settings.versions["torch"]
    with pytest.raises(VideolensError, match="overwrite=True"):
        trace.save(tmp_path / "trace")
    with pytest.raises(VideolensError, match="no answer trace"):
        vl.AnswerTrace.load(tmp_path)


def test_a_trace_that_contradicts_itself_is_refused(trace: vl.AnswerTrace) -> None:
    with pytest.raises(VideolensError, match="in order"):
        vl.AnswerTrace(trace.table.iloc[1:], trace.settings)
    with pytest.raises(VideolensError, match="twice"):
        vl.AnswerTrace(pd.concat([trace.table, trace.table]), trace.settings)
    with pytest.raises(VideolensError, match="outside 0 … 1"):
        vl.AnswerTrace(trace.table.assign(probability=2.0), trace.settings)
    with pytest.raises(VideolensError, match="has no row"):
        vl.AnswerTrace(trace.table.iloc[:0], TraceSettings(model="", n_layers=12))
    with pytest.raises(SelectionError, match="moving direction"):
        trace.curve(task="moving directions")


def test_the_figure_says_what_it_shows(trace: vl.AnswerTrace) -> None:
    figure = trace.figure()
    panels = [axes for axes in figure.axes if axes.get_title("left")]
    assert [axes.get_title("left") for axes in panels] == ["moving direction", "object count", "all tasks"]
    assert [axes.get_title("right") for axes in panels] == ["n = 3", "n = 3", "n = 6"]
    drawn = next(line for line in panels[2].lines if len(line.get_xdata()) == 12)
    assert list(drawn.get_xdata()) == list(range(1, 13)), "layers count from 1 here"
    assert np.allclose(drawn.get_ydata(), trace.curve("true").mean)
    text = " ".join(artist.get_text() for artist in figure.findobj(lambda each: hasattr(each, "get_text")))
    assert "final norm" in text and "95 %" in text and "6 of 6" in text and "true option" in text
    with pytest.raises(SelectionError, match="task in this answer trace"):
        trace.figure(tasks=["object counts"])
