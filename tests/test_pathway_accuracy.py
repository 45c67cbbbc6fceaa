"""Accuracy along a pathway: every number from plain forwards, paired losses, files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.errors import QuestionError, VideolensError
from videolens.experiments.common.statistics import unseen
from videolens.experiments.pathway.experiment import PathwayExperiment
from videolens.experiments.pathway.result import PathwaySettings
from videolens.interventions.edges import causal_mask, count_live

MODEL = tiny_model()
PROMPTS = [tiny_prompt(MODEL, seed=seed, answer=seed % 2) for seed in range(4)]
PATHWAY = vl.Pathway.closed(n_layers=3, cross_frame=[0], video_to_question=[0, 1], question_to_last=[1, 2])


@pytest.fixture(scope="module")
def found() -> vl.PathwayAccuracy:
    return vl.evaluate_pathway(MODEL, PROMPTS, PATHWAY, seeds=2, progress=False)


def test_every_row_is_that_of_a_plain_hooked_forward(found: vl.PathwayAccuracy) -> None:
    table = found.to_dataframe()
    assert len(table) == 4 * (2 + 2 * 2)
    kinds = {"random, live edges": "live edges", "random, routes and layers": "routes and layers"}
    for row in table.itertuples():
        prompt = PROMPTS[int(row.question.removeprefix("prompt "))]
        cut = None
        if row.condition == "pathway":
            cut = PATHWAY
        elif row.condition in kinds:
            cut = vl.RandomBlocking(PATHWAY, int(row.seed), kinds[row.condition])
        logits = MODEL.run_with_hooks(prompt, fwd_hooks=cut.hooks(prompt) if cut else [])[0, -1]
        assert row.choice == "AB"[int(logits[[5, 6]].argmax())]
        assert row.answer == "AB"[prompt.tokens.answer or 0]
        assert row.correct == (row.choice == row.answer)
        assert row.first == (int(logits.argmax()) == prompt.answer_token)
        assert row.p_answer == pytest.approx(float(logits.softmax(-1)[prompt.answer_token]), abs=1e-6)
        assert (row.edges_full, row.live_edges_full) == (3 * 325, 2 * 325 + 25)
        if cut is not None:
            assert (row.edges, row.live_edges) == (cut.edges(prompt), cut.live_edges(prompt))
    assert count_live(lambda layer: causal_mask(25), 3, 24) == 675


def test_the_engine_changes_nothing(found: vl.PathwayAccuracy) -> None:
    full = vl.evaluate_pathway(MODEL, PROMPTS, PATHWAY, seeds=2, engine="full", progress=False)
    numbers = full.table["p_answer"], found.table["p_answer"]
    np.testing.assert_allclose(*numbers, atol=1e-6)
    others = [column for column in found.table if column != "p_answer"]
    pd.testing.assert_frame_equal(full.table[others], found.table[others])


def test_parts_of_the_questions_make_the_same_table(found: vl.PathwayAccuracy) -> None:
    experiment = PathwayExperiment(MODEL, pathway=PATHWAY.to_dict(), seeds=2)
    rows = [experiment.ask(p, f"prompt {i}", "", lambda share: None).rows for i, p in enumerate(PROMPTS)]
    tables = [pd.DataFrame(r, columns=list(experiment.row._fields)).astype(dict(experiment.dtypes)) for r in rows]
    pd.testing.assert_frame_equal(pd.concat(tables, ignore_index=True), found.table)


def test_accuracies_losses_and_shares_are_means_over_questions() -> None:
    # three questions by hand: along the pathway one more is wrong, of two random cuts two and one
    rows = []
    for i, (full, kept, cuts) in enumerate([(1, 1, (1, 0)), (1, 0, (0, 0)), (0, 0, (1, 0))]):
        conditions = [("full", None, full), ("pathway", None, kept)]
        conditions += [("random, live edges", seed, hit) for seed, hit in enumerate(cuts)]
        for condition, seed, hit in conditions:
            kept_edges = {"full": (90, 80), "pathway": (45, 20)}.get(condition, (50, 20))
            rows.append(
                (f"q{i}", "t", condition, seed, 2, "A", "AB"[1 - hit], bool(hit), bool(hit), 0.5, *kept_edges, 90, 80)
            )
    from videolens.experiments.pathway.result import PathwayRow

    table = pd.DataFrame(rows, columns=list(PathwayRow._fields)).astype({"seed": "Int64"})
    settings = PathwaySettings(model="m", pathway=PATHWAY.to_dict(), random=("live edges",), seeds=2, n_asked=3)
    found = vl.PathwayAccuracy(table, settings)
    assert found.accuracy_full.value == pytest.approx(2 / 3) and found.accuracy.value == pytest.approx(1 / 3)
    assert found.loss().value == pytest.approx(100 / 3)
    assert found.loss("random, live edges").value == pytest.approx(100 * (0.5 + 1 - 0.5) / 3)
    assert found.edges_kept.value == 0.5 and found.live_edges_kept.value == 0.25
    assert found.edges_kept.low == found.edges_kept.high == 0.5
    # paired: a question that both get right, or both wrong, adds no spread
    loss, share = found.loss(), unseen(3)
    assert loss.low == pytest.approx((1 - share) * 100 / 3 - share * 100 / 3), "no lower than three unseen kinds allow"
    assert loss.high == pytest.approx(100)
    assert found.summary().query("task == 'all' and condition == 'pathway'")["live_edges_kept"].item() == 0.25
    with pytest.raises(VideolensError, match="every question needs 4 rows"):
        vl.PathwayAccuracy(table[1:], settings)
    with pytest.raises(VideolensError, match="more live edges than open ones"):
        vl.PathwayAccuracy(table.assign(live_edges=100), settings)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"random": [], "sneeds": 3}'])
def test_damaged_settings_are_named(found: vl.PathwayAccuracy, tmp_path: Path, content: str) -> None:
    (found.save(tmp_path) / "pathway.json").write_text(content)
    with pytest.raises(VideolensError, match=r"pathway\.json (does not hold|is damaged)"):
        vl.PathwayAccuracy.load(tmp_path)
    with pytest.raises(VideolensError, match="unknown measure 'corect'; did you mean 'correct'"):
        found.mean("corect", "full")


def test_what_is_saved_comes_back(found: vl.PathwayAccuracy, tmp_path: Path) -> None:
    found.save(tmp_path / "kept")
    again = vl.PathwayAccuracy.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.settings == found.settings and again.pathway == PATHWAY
    with pytest.raises(VideolensError, match="already holds"):
        found.save(tmp_path / "kept")


def test_the_figure_shows_the_pathway_and_every_condition(found: vl.PathwayAccuracy) -> None:
    figure = found.figure()
    words = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    for needed in ("cross-frame: 1", "video → question: 1–2", "question → last: 2–3", "random, live edges", "n = 4"):
        assert needed in words, needed


def test_in_the_bundled_model_a_pathway_keeps_the_answers_and_random_cuts_do_not() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="validation", n=2)
    pathway = vl.Pathway.closed(
        n_layers=12,
        cross_frame=range(6),
        video_to_question=range(8),
        question_to_last=[2, 3, 4, 5, 8, 9, 10, 11],
    )
    found = vl.evaluate_pathway(model, questions, pathway, random=["live edges"], seeds=2, progress=False)
    assert found.accuracy_full.value == 1 and found.accuracy.value >= 0.9
    assert found.live_edges_kept.value < 0.6
    assert found.mean("correct", "random, live edges").value < 0.8


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (lambda: vl.evaluate_pathway(MODEL, [], PATHWAY), VideolensError, "there are no questions"),
        (
            lambda: vl.evaluate_pathway(MODEL, [tiny_prompt(MODEL, options=False)], PATHWAY),
            QuestionError,
            "'prompt 0' has no options",
        ),
        (
            lambda: vl.evaluate_pathway(MODEL, [replace(PROMPTS[0], answer_token=None)], PATHWAY),
            QuestionError,
            "'prompt 0' has no known answer",
        ),
        (
            lambda: vl.evaluate_pathway(MODEL, PROMPTS, vl.Pathway(12)),
            VideolensError,
            "is for 12 layers, the model has 3",
        ),
        (lambda: vl.evaluate_pathway(MODEL, PROMPTS, {"preset": "VideoLLaMA3"}), VideolensError, "did you mean"),
        (
            lambda: vl.evaluate_pathway(MODEL, PROMPTS, PATHWAY, random=["live"]),
            VideolensError,
            "unknown kind of random",
        ),
        (lambda: vl.evaluate_pathway(MODEL, PROMPTS, PATHWAY, seeds=0), VideolensError, "at least one random cut"),
    ],
)
def test_misuse_is_one_clear_error(ask: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ask()  # type: ignore[operator]


def test_a_pathway_is_chosen_by_what_does_not_saturate_task_by_task() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="validation", n=2)
    chosen = vl.choose_pathway(model, questions, progress=False)
    assert chosen.pathway == vl.Pathway.from_flow(
        chosen.flow, each_task=True, measure="logit difference, relative"
    ) and chosen.flow.routes == ["cross-part", "part V -> part Q", "part Q -> part A"]
    assert chosen.validated.n == 10 and chosen.validated.conditions == ["full", "pathway"]
    assert set(chosen.pathway.cross_frame) >= {2, 3} and set(chosen.pathway.question_to_last) >= {10, 11}
    # by the answer's probability alone, everything together, fewer layers come out
    paper = vl.Pathway.from_flow(chosen.flow)
    assert set(paper.video_to_question) <= set(chosen.pathway.video_to_question)


def test_settings_of_something_else_are_one_clear_error(found: vl.PathwayAccuracy, tmp_path: Path) -> None:
    import json

    found.save(tmp_path / "kept")
    for change in ({"windows": 3}, {"random": None}):
        settings = json.loads((tmp_path / "kept/pathway.json").read_text()) | change
        (tmp_path / "kept/pathway.json").write_text(json.dumps(settings))
        with pytest.raises(VideolensError, match=r"pathway\.json does not hold the settings"):
            vl.PathwayAccuracy.load(tmp_path / "kept")
