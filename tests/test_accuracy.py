"""Accuracy: the choice is what plain forwards say, conditions change what they should, and the table keeps itself
honest."""

from __future__ import annotations

import string
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers.report import invented_accuracy, letter_model, questions

import videolens as vl
from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS
from videolens.errors import QuestionError, VideolensError
from videolens.experiments.accuracy.conditions import CONDITIONS, apply
from videolens.experiments.accuracy.experiment import measure_accuracy
from videolens.experiments.accuracy.result import Accuracy, AccuracyRow, AccuracySettings
from videolens.experiments.common.scoring import option_probabilities
from videolens.experiments.common.statistics import proportion
from videolens.model.checkpoints.bundled import bundled_names


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return letter_model()


@pytest.fixture(scope="module")
def result(model: vl.HookedVideoTransformer) -> Accuracy:
    return measure_accuracy(model, questions(), conditions=tuple(CONDITIONS), name="tiny", max_batch=2, progress=False)


def test_every_choice_is_that_of_a_forward_of_its_own(model: vl.HookedVideoTransformer, result: Accuracy) -> None:
    table = result.to_dataframe()
    assert tuple(table.columns) == AccuracyRow._fields and len(table) == 6 * 4
    assert list(table["question"][:8]) == ["q0"] * 4 + ["q1"] * 4, "rows stand in the order of the questions"
    asked = {question.id: question for question in questions()}
    for row in table.itertuples():
        question = apply(row.condition, asked[row.question], seed=0)
        prompt = model.prompt(question)
        logits = model(prompt)[0, -1]
        letters = [float(logits[token]) for token in prompt.option_tokens]
        assert row.choice == string.ascii_uppercase[letters.index(max(letters))]
        assert row.answer == question.letter and row.correct == (row.choice == row.answer)
        assert row.p_answer == pytest.approx(float(logits.softmax(-1)[prompt.answer_token]), abs=1e-5)
        assert row.option_first == (int(logits.argmax()) in prompt.option_tokens)
        assert row.n_options == 4


def test_the_size_of_the_batch_changes_nothing(model: vl.HookedVideoTransformer, result: Accuracy) -> None:
    one = measure_accuracy(
        model, questions(), conditions=tuple(CONDITIONS), name="tiny", max_batch=1, progress=False
    ).table
    exact = [column for column in AccuracyRow._fields if column != "p_answer"]
    pd.testing.assert_frame_equal(one[exact], result.table[exact])
    assert one["p_answer"].to_numpy() == pytest.approx(result.table["p_answer"].to_numpy(), abs=1e-5)


def test_conditions_change_the_frames_and_what_is_right() -> None:
    question = questions(1)[0]
    frames = question.video.frames
    backwards = apply("reversed", question)
    assert torch.equal(backwards.video.frames, frames.flip(0)) and backwards.answer == question.reversed_answer
    assert apply("as is", question) is question
    blank = apply("blank", question)
    assert int(blank.video.frames.max()) == 0 and blank.answer == question.answer
    frozen = apply("frozen 1", question)
    assert torch.equal(frozen.video.frames, frames[[1]].expand_as(frames)) and frozen.answer == question.answer
    with pytest.raises(VideolensError, match=r"frozen\(9\)"):
        apply("frozen 9", question).video.frames  # noqa: B018
    orders = {tuple(apply("shuffled", replace(question, id=str(i))).video.indices.tolist()) for i in range(20)}
    assert len(orders) > 1, "every question has an order of its own"
    again = [apply("shuffled", question, seed=4).video.indices.tolist() for _ in range(2)]
    assert again[0] == again[1] and sorted(again[0]) == [0, 1, 2]
    with pytest.raises(QuestionError, match="reversed_answer"):
        apply("reversed", replace(question, reversed_answer=None))


def test_without_frames_every_clip_gets_the_same_answer(result: Accuracy) -> None:
    blank = result.table[(result.table["condition"] == "blank")]
    assert blank["choice"][::2].nunique() == 1 and blank["choice"][1::2].nunique() == 1


def test_shares_come_with_their_interval_and_chance(result: Accuracy) -> None:
    summary = result.summary()
    assert list(summary["condition"]) == list(CONDITIONS) and set(summary["chance"]) == {0.25}
    for row in summary.itertuples():
        group = result.table[result.table["condition"] == row.condition]
        share = proportion(int(group["correct"].sum()), 6)
        assert (row.accuracy, row.low, row.high, row.n) == (share.value, share.low, share.high, 6)
        assert row.not_an_option == pytest.approx(1 - group["option_first"].mean())
        assert result.share("tiny", "moving", row.condition) == share
    for arguments in (("big", "moving"), ("tiny", "movin"), ("tiny", "moving", "backwards")):
        with pytest.raises(VideolensError, match="known:"):
            result.share(*arguments)


def test_the_markdown_table_has_a_column_for_what_was_asked_and_a_dash_for_what_was_not(result: Accuracy) -> None:
    still = result.table[result.table["condition"] == "as is"].assign(task="colour")
    both = Accuracy.join([result, Accuracy(still, (AccuracySettings(model="tiny", n_asked=6, conditions=("as is",)),))])
    lines = both.markdown().splitlines()
    assert lines[0] == "| task | n | chance | tiny | tiny, reversed | tiny, shuffled | tiny, blank |"
    assert lines[2].startswith("| moving | 6 | 25 % | ") and lines[3].endswith("| – | – | – |")
    assert "among the options' letters" in lines[-1] and "no option's letter" in lines[-1]


def test_a_result_can_be_written_and_read_and_is_not_overwritten(result: Accuracy, tmp_path) -> None:
    again = Accuracy.load(result.save(tmp_path / "a"))
    pd.testing.assert_frame_equal(again.table, result.table)
    assert again.settings == result.settings and again.settings[0].versions["torch"] == torch.__version__
    with pytest.raises(VideolensError, match="already holds"):
        result.save(tmp_path / "a")
    with pytest.raises(VideolensError, match=r"holds no .*accuracy\.parquet"):
        Accuracy.load(tmp_path)


def test_a_table_that_contradicts_itself_is_refused(result: Accuracy) -> None:
    for changed, message in (
        (result.table.assign(correct=~result.table["correct"]), "called correct that is not"),
        (result.table.assign(p_answer=2.0), "outside 0"),
        (result.table.assign(model="other"), "which the settings do not say"),
        (result.table.iloc[1:], "which the settings do not say"),
        (result.table.assign(question="q"), "asked the same question twice"),
        (result.table.drop(columns="task"), "has the columns"),
    ):
        with pytest.raises(VideolensError, match=message):
            Accuracy(changed, result.settings)
    with pytest.raises(VideolensError, match="nothing to join"):
        Accuracy.join([])


def test_bad_requests_are_one_clear_error(model: vl.HookedVideoTransformer) -> None:
    one = questions(1)[0]
    many = replace(one, options=["a", "b", "c", "d", "e", "f"], answer="a", reversed_answer=None)
    for arguments, options, message in (
        ([], {}, "no questions"),
        ([one], {"conditions": ("as it is",)}, "did you mean 'as is'"),
        ([one], {"conditions": ("frozen",)}, "did you mean 'frozen 0'"),
        ([one], {"conditions": "as is"}, "one string"),
        ([one], {"conditions": ()}, "at least one condition"),
        ([one], {"max_batch": 0}, "max_batch"),
        ([replace(one, answer=None, reversed_answer=None)], {}, "answer"),
        ([one.open_ended()], {}, "no options"),
        ([many], {}, "begin with the same token"),
        ([one, one], {}, "is there twice"),
    ):
        with pytest.raises(VideolensError, match=message):
            measure_accuracy(model, arguments, progress=False, **options)


def test_probabilities_of_the_options(model: vl.HookedVideoTransformer) -> None:
    prompt = model.prompt(questions(1)[0])
    expected = model(prompt)[0, -1].softmax(-1)[list(prompt.option_tokens)]
    assert torch.allclose(option_probabilities(model, prompt), expected, atol=1e-6)


def test_the_figure_shows_every_task_condition_and_model(tmp_path) -> None:
    figure = invented_accuracy().figure()
    figure.savefig(tmp_path / "figure.png")
    said = {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}
    assert {"shuffled", "blank", "object count", "n = 8", "shapes", "shapes-image", "chance"} <= said
    with pytest.raises(VideolensError, match="did you mean 'object count'"):
        invented_accuracy().figure(tasks=["object counts"])


@pytest.mark.slow
@pytest.mark.skipif(
    not {"shapes", "shapes-image"} <= set(bundled_names()), reason="runs once both checkpoints are in videolens/assets"
)
def test_the_bundled_models_on_a_fresh_seed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videolens.pages.shapes_accuracy import shapes_accuracy

    monkeypatch.setenv("VIDEOLENS_CACHE", str(tmp_path))
    asked = {
        "shapes": {"tasks": TEMPORAL_TASKS},
        "shapes-image": {"conditions": ("as is",)},
    }
    table = pd.concat(
        shapes_accuracy(
            {name: vl.HookedVideoTransformer.from_pretrained(name)}, n=20, seed=7, progress=False, **options
        ).table
        for name, options in asked.items()
    )

    def share(model: str, tasks: tuple[str, ...], condition: str) -> float:
        rows = (table["model"] == model) & table["task"].isin(tasks) & (table["condition"] == condition)
        return float(table.loc[rows, "correct"].mean())

    assert share("shapes", TEMPORAL_TASKS, "as is") >= 0.85
    assert share("shapes", TEMPORAL_TASKS, "reversed") >= 0.8
    assert share("shapes-image", STILL_TASKS, "as is") >= 0.85
    time_needed = tuple(task for task in TEMPORAL_TASKS if task != "scene transition")
    # chance is 0.31 on these; two standard errors of 80 questions are 0.1
    assert share("shapes-image", time_needed, "as is") <= 0.31 + 0.07 + 0.1
