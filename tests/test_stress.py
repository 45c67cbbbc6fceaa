"""Stress tests: what is done to questions, what is measured, that attacks attack, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.engine.full import each_logits
from videolens.errors import ModelError, PromptError, QuestionError, SelectionError, VideolensError
from videolens.experiments.common.scoring import margins_of
from videolens.experiments.stress.attack import attack
from videolens.experiments.stress.experiment import StressExperiment
from videolens.experiments.stress.order import ORDER
from videolens.experiments.stress.perturbations import ADVERSARIAL, PERTURBATIONS, SEVERITIES, perturbed
from videolens.experiments.stress.pictures import PICTURES
from videolens.experiments.stress.table import markdown, table_rows
from videolens.interventions.route_pathway import RoutePathway

PATHWAY = vl.Pathway(12, range(6), range(8), [2, 3, 4, 5, 8, 9, 10, 11])
NARROW = vl.Pathway(12, (), [4], [9])
ASKED = ("noise", "shuffled frames", "reversed", "false hint", "reordered options")


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return list(vl.load_dataset("shapes", split="validation", tasks=["moving direction", "action antonym"], n=1))


@pytest.fixture(scope="module")
def found(model, questions) -> vl.Stress:
    both = {"chosen": PATHWAY, "narrow": NARROW.to_dict()}
    return vl.stress(model, both, questions, perturbations=ASKED, severities=[3], compiled=True, progress=False)


# -- what is done --------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(16, 40), width=st.integers(16, 40))
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_change_more_with_severity_and_the_same_each_time(name, seed, height, width) -> None:
    smooth = np.random.default_rng(seed).integers(60, 196, (4, 5, 5, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pictures = smooth[:, :height, :width].astype(np.uint8)
    kept = pictures.copy()
    made = [PICTURES[name](pictures, severity, np.random.default_rng(seed)) for severity in SEVERITIES]
    again = [PICTURES[name](pictures, severity, np.random.default_rng(seed)) for severity in SEVERITIES]
    assert all(one.shape == pictures.shape and one.dtype == np.uint8 for one in made)
    assert all(np.array_equal(one, other) for one, other in zip(made, again, strict=True))
    assert np.array_equal(pictures, kept), "the clip itself stays as it was"
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    if name not in ("shift", "compression"):  # what moves may come to lie on what looks like it
        apart = [float(((one.astype(float) - pictures) ** 2).mean()) for one in made]
        assert 0 < apart[0] < apart[1] < apart[2]


@pytest.mark.parametrize("seed", range(6))
def test_distractors_are_small_and_move_and_look_like_nothing_else(seed: int) -> None:
    pictures = np.full((8, 48, 60, 3), 40, np.uint8)
    pictures[:, 10:20, 10:20] = (255, 0, 0)
    for severity in SEVERITIES:
        changed = PICTURES["distractor"](pictures, severity, np.random.default_rng(seed))
        there = (changed != pictures).any(axis=-1)
        colours = np.unique(changed[there], axis=0)
        assert len(colours) == 1 and not (pictures == colours[0]).all(axis=-1).any()
        area = there.sum(axis=(1, 2))
        assert 0.7 * np.pi * 4**2 * 1 < area.max() <= severity * 8 * 8 and area.min() > 0
        centres = [np.argwhere(one).mean(axis=0) for one in there]
        assert np.ptp(np.array(centres), axis=0).max() > 1


def test_orders_of_frames() -> None:
    for name, change in ORDER.items():
        for seed in range(5):
            one, two, three = (change(8, severity, np.random.default_rng(seed)) for severity in SEVERITIES)
            assert len(one) == len(two) == len(three) == 8 and one != two != three
            apart = [sum(place != at for at, place in enumerate(places)) for places in (one, two, three)]
            assert 0 < apart[0] <= apart[1] <= apart[2] or name == "shuffled frames"
            if name == "dropped frames":
                assert [places.count(None) for places in (one, two, three)] == [1, 2, 4]
            if name == "repeated frames":
                assert [8 - len(set(places)) for places in (one, two, three)] == [1, 2, 4] and one == sorted(one)
            if name == "shuffled frames":
                assert apart[:2] == [2, 4] and all(sorted(places) == list(range(8)) for places in (one, two, three))
    assert ORDER["slow motion"](8, 2, np.random.default_rng(0)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_question_is_perturbed_by_seed_and_id(questions) -> None:
    question = questions[0]
    one, same, other = (perturbed("noise", question, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.video.frames, same.video.frames) and not torch.equal(one.video.frames, other.video.frames)
    renamed = perturbed("noise", replace(question, id="another"), 2, seed=0)
    assert not torch.equal(one.video.frames, renamed.video.frames)
    assert torch.equal(one.video.seconds, question.video.seconds), "the clock is the clip's"
    dropped = perturbed("dropped frames", question, 1, seed=0).video.frames
    black = [place for place, frame in enumerate(dropped) if int(frame.max()) == 0]
    kept = [place for place in range(8) if place not in black]
    assert len(black) == 1 and torch.equal(dropped[kept], question.video.frames[kept])


def test_words_are_perturbed(questions) -> None:
    for question in questions:
        hints = [perturbed("false hint", question, severity, seed=3) for severity in SEVERITIES]
        [letter] = {hint.stem.split("(")[1][0] for hint in hints}
        assert question.options["ABCD".index(letter)] != question.answer and letter in "ABCD"[: len(question.options)]
        assert [hint.stem.removeprefix(question.stem + " ").split(" (")[0] for hint in hints] == [
            "Is it",
            "I think it is",
            "The answer is",
        ]
        orders = [perturbed("reordered options", question, severity, seed=0) for severity in SEVERITIES]
        assert all(one.answer == question.answer and set(one.options) == set(question.options) for one in orders)
        assert all(one.letter != question.letter for one in orders)
        assert len({one.options for one in orders}) == len(question.options) - 1


def test_what_a_perturbation_needs(questions) -> None:
    still = vl.Video.from_array(np.zeros((1, 16, 16, 3), np.uint8))
    assert perturbed("shuffled frames", questions[0].with_video(still), 1, seed=0) is None
    assert perturbed("reversed", replace(questions[0], reversed_answer=None), 1, seed=0) is None
    assert perturbed("reversed", questions[0], 1, seed=0).answer == questions[0].reversed_answer


# -- attacks -------------------------------------------------------------------------------------------------------


def levels(model, pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (model.pixel_settings.mean, model.pixel_settings.std))
    return 255 * (pixels.double() * std + mean)


def in_full(model):
    return lambda batch: each_logits(model, batch, ())


@pytest.mark.parametrize("pathway", [None, PATHWAY], ids=["full", "pathway"])
def test_an_attack_makes_the_right_option_lose_within_its_bounds(model, questions, pathway) -> None:
    prompt = model.prompt(questions[0])
    hooks = [] if pathway is None else pathway.hooks(prompt)
    found = attack(model, prompt, lambda batch: each_logits(model, batch, hooks), epsilons=[1, 2], steps=4)
    assert found.margins.shape == (5, 2) and bool((found.margins.diff(dim=0)[:, 0] < 0).all()), "the loss rises"
    assert bool((found.margins[4] < 0).all()) and bool((found.margins[0] > 0).all())
    before = levels(model, prompt.pixel_values[0])
    for place, epsilon in enumerate((1, 2)):
        after = levels(model, found.prompt.pixel_values[place])
        assert float((after - before).abs().max()) == pytest.approx(epsilon, abs=1e-3)
        torch.testing.assert_close(after, after.round(), atol=2e-3, rtol=0)
        assert after.min() > -0.01 and after.max() < 255.01
        # the attacked frames as an ordinary clip give the same answer
        frames = after.round().to(torch.uint8).permute(0, 2, 3, 1)
        video = questions[0].video.replaced(0, None, vl.Video.from_array(frames))
        again = model.prompt(questions[0].with_video(video))
        logits = model.run_with_hooks(again, fwd_hooks=[] if pathway is None else pathway.hooks(again))[:, -1]
        torch.testing.assert_close(found.margins[-1, place], margins_of(logits, [again])[0], atol=2e-3, rtol=1e-3)


def test_attacks_side_by_side_are_those_one_by_one(model, questions) -> None:
    prompt = model.prompt(questions[0])
    together = attack(model, prompt, in_full(model), epsilons=[4, 1], steps=3)
    for place, epsilon in enumerate((4, 1)):
        alone = attack(model, prompt, in_full(model), epsilons=[epsilon], steps=3)
        torch.testing.assert_close(together.margins[:, place], alone.margins[:, 0], atol=1e-3, rtol=0)
        differ = (together.prompt.pixel_values[place] - alone.prompt.pixel_values[0]).abs() > 1e-5
        assert float(differ.float().mean()) < 1e-3, "but for slopes within rounding of zero"


def test_a_compiled_pathway_has_the_slopes_of_the_masked_one(model, questions) -> None:
    prompt = model.prompt(questions[0])
    compiled = model.compile(PATHWAY)
    slopes = []
    for run in (lambda batch: each_logits(model, batch, PATHWAY.hooks(prompt)), lambda b: compiled.traced(b)[:, 0]):
        pixels = prompt.pixel_values.clone().requires_grad_()
        logits = run(model.frontend.shown(prompt, pixels))[0]
        slopes.append(torch.autograd.grad(logits[prompt.answer_token], pixels)[0])
    assert float((slopes[0] - slopes[1]).abs().max() / slopes[0].std()) < 1e-2
    assert not compiled(prompt).requires_grad
    assert not compiled(model.frontend.shown(prompt, prompt.pixel_values.clone().requires_grad_())).requires_grad


def test_black_and_white_are_not_passed(model, questions) -> None:
    frames = questions[0].video.frames
    frames[:, :20], frames[:, 20:40] = 0, 255
    prompt = model.prompt(questions[0].with_video(vl.Video.from_array(frames)))
    found = attack(model, prompt, in_full(model), epsilons=[4], steps=2)
    after = levels(model, found.prompt.pixel_values[0])
    assert (
        after.min() > -0.01 and after.max() < 255.01 and after[:, :, :20].max() > 1 and after[:, :, 20:40].min() < 254
    )


def test_pixels_that_are_shown_pass_gradients(model, questions) -> None:
    prompt = model.prompt(questions[0])
    pixels = prompt.pixel_values.clone().requires_grad_()
    shown = model.frontend.shown(prompt, pixels)
    torch.testing.assert_close(shown.residual, prompt.residual)
    (slope,) = torch.autograd.grad(shown.residual.sum(), pixels)
    assert bool((slope.flatten(2).abs().sum(-1) > 0).all()), "every colour of every frame"
    assert not model.frontend.encode(pixels).requires_grad
    with pytest.raises(PromptError, match="prepare as many frames"):
        model.frontend.shown(prompt, pixels[:, :4])


def test_a_model_without_gradients_is_refused(model) -> None:
    quantised = copy.deepcopy(model)
    weight = quantised.blocks[1].mlp.up.weight
    quantised.blocks[1].mlp.up.weight = torch.nn.Parameter(weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"blocks\.1\.mlp\.up\.weight is of torch\.int8.*bfloat16"):
        StressExperiment(quantised, pathway=PATHWAY, perturbations=["noise", ADVERSARIAL])
    StressExperiment(quantised, pathway=PATHWAY, perturbations=["noise"])


def test_a_tower_that_cuts_the_graph_is_said(model, questions, monkeypatch) -> None:
    own = type(model.frontend).encode
    monkeypatch.setattr(type(model.frontend), "encode", lambda self, pixels, gradients=False: own(self, pixels))
    with pytest.raises(ModelError, match="no gradient passes from the answer to the pixels"):
        attack(model, model.prompt(questions[0]), in_full(model), epsilons=[1], steps=1)


# -- what is measured ----------------------------------------------------------------------------------------------


def test_rows_are_those_of_plain_forwards(model, questions, found) -> None:
    table = found.table.set_index(["question", "perturbation", "severity", "condition"])
    question = questions[1]
    asked = [("none", 0), ("noise", 3), ("shuffled frames", 3), ("reordered options", 3), ("reversed", 1)]
    for name, severity in asked:
        one = question if name == "none" else perturbed(name, question, severity, seed=0)
        prompt = model.prompt(one)
        for condition, hooks in {"full": [], "narrow": NARROW.hooks(prompt)}.items():
            logits = model.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1]
            among = logits[list(prompt.option_tokens)].softmax(-1)
            row = table.loc[(question.id, name, severity, condition)]
            assert row["choice"] == one.options[int(among.argmax())] and row["answer"] == one.answer
            assert row["confidence"] == pytest.approx(float(among.max()), abs=1e-4)
            assert row["p_answer"] == pytest.approx(float(logits.softmax(-1)[prompt.answer_token]), abs=1e-4)


def test_a_pathway_that_lets_too_little_through_agrees_less(found) -> None:
    assert found.accuracy().value == 1 and found.agreement("chosen").value == 1
    assert found.agreement("narrow").value < 1 and found.difference("narrow").value < 0
    assert found.flips("reversed", 1).value == 1 and found.accuracy("reversed", 1).value == 1
    same, apart = found.compiled()
    assert same.value == 1 and 0 < apart < 1e-3 and same.n == 2 * 2 * (1 + 4 + 1)


def test_a_pathway_that_goes_by_the_true_option_cuts_each_question_in_its_own_place(model, questions) -> None:
    pathway = RoutePathway(12, {"true option -> last": range(12)})
    names = ["noise", "reordered options"]
    asked = vl.stress(model, pathway, questions[:1], perturbations=names, severities=[1, 2], progress=False)
    table = asked.table.query("condition == 'pathway'").set_index(["perturbation", "severity"])
    for name in names:
        for severity in (1, 2):
            prompt = model.prompt(perturbed(name, questions[0], severity, seed=0))
            logits = model.run_with_hooks(prompt, fwd_hooks=pathway.hooks(prompt))[0, -1]
            expected = float(logits.softmax(-1)[prompt.answer_token])
            assert table.loc[(name, severity), "p_answer"] == pytest.approx(expected, abs=1e-5)


def test_an_attacked_question_is_asked_under_every_condition(model, questions) -> None:
    asked = vl.stress(
        model, PATHWAY, questions[:1], perturbations=[ADVERSARIAL], severities=[3], steps=3, progress=False
    )
    before, after = (asked.table[asked.table["severity"] == at].set_index("condition") for at in (0, 3))
    assert list(after.index) == ["full", "pathway"] and (after["p_answer"] < before["p_answer"]).all()


def invented(found: vl.Stress, rows: list[tuple[str, str, int, str, str, float]]) -> vl.Stress:
    """A result of (question, perturbation, severity, condition, choice, confidence); "a" is right."""
    made = [
        ("q" + q, "t", name, severity, condition, 2, "a", choice, choice == "a", confidence, 0.5, "", np.nan)
        for q, name, severity, condition, choice, confidence in rows
    ]
    plain = {"pathways": {"p": PATHWAY.to_dict()}, "compiled": False}
    return vl.Stress(pd.DataFrame(made, columns=found.table.columns), replace(found.settings, **plain))


def test_measures_by_hand(found) -> None:
    rows = []
    for q, full, along in [("1", "a", "a"), ("2", "a", "b"), ("3", "b", "b"), ("4", "a", "a")]:
        rows += [(q, "none", 0, "full", "a", 0.95), (q, "none", 0, "p", "a", 0.95)]
        rows += [(q, "noise", 1, "full", full, 0.75), (q, "noise", 1, "p", along, 0.62 if q == "1" else 0.97)]
    made = invented(found, rows)
    assert made.accuracy("noise", 1).value == 0.75 and made.accuracy("noise", 1, condition="p").value == 0.5
    assert made.flips("noise", 1).value == 0.25 and made.flips("noise", 1, condition="p").value == 0.5
    assert made.agreement("p", "noise", 1).value == 0.75
    apart = made.difference("p", "noise", 1)
    assert apart.value == -25 and apart.low < -25 < apart.high
    assert made.mean_difference("p", "noise") == made.mean_difference("p") == apart
    more = [(q, "blur", 2, on, "a" if on == "p" else "b", 0.9) for q in "1234" for on in ("full", "p")]
    both = invented(found, rows + more)
    assert both.mean_difference("p", "blur").value == 100 and both.mean_difference("p").value == (100 - 25) / 2
    assert made.calibration("noise", 1).value == pytest.approx(0)
    # bin 0.6: one of four, right; bin 0.9: three, of which one is right
    ece = made.calibration("noise", 1, condition="p")
    assert ece.value == pytest.approx((1 - 0.62) / 4 + abs(1 - 3 * 0.97) / 4)
    [_, noise] = table_rows(made)
    assert noise[:3] == ["noise", "75", "50"] and noise[3].startswith("−25 [−") and noise[4] == "75"
    assert f"| {' | '.join(noise)} |" in markdown(made) and "| p − full |" in markdown(made)
    line = made.summary().query("perturbation == 'noise' and condition == 'p'").iloc[0]
    assert line["difference_points"] == -25 and line["ece"] == ece.value and line["n"] == 4 and made.chance() == 0.5


def test_what_contradicts_itself_is_refused(found) -> None:
    with pytest.raises(VideolensError, match="needs the conditions"):
        invented(found, [("1", "none", 0, "full", "a", 0.9)])
    with pytest.raises(VideolensError, match="was not asked unperturbed"):
        invented(found, [("1", "noise", 1, "full", "a", 0.9), ("1", "noise", 1, "p", "a", 0.9)])
    with pytest.raises(VideolensError, match="compiled=True"):
        invented(found, [("1", "none", 0, "full", "a", 0.9), ("1", "none", 0, "p", "a", 0.9)]).compiled()


def test_it_is_drawn_saved_and_left_out_is_said(model, questions, found, tmp_path) -> None:
    assert len(found.figure(perturbations=["noise", "reversed"]).axes) == 2
    again = vl.Stress.load(found.save(tmp_path / "stress"))
    assert repr(again) == repr(found) and "5 perturbations" in repr(found)
    pd.testing.assert_frame_equal(again.table, found.table)
    open_end = replace(questions[0], reversed_answer=None)
    partly = vl.stress(model, PATHWAY, [open_end], perturbations=["reversed", "noise"], severities=[1], progress=False)
    [left] = partly.skipped().to_dict("records")
    assert left["perturbation"] == "reversed" and "known of the clip backwards" in left["reason"]
    assert partly.perturbations == ["noise"]


def test_a_run_gives_what_a_call_gives(model, questions, found, tmp_path) -> None:
    entry = {"name": "stress", "pathway": PATHWAY.to_dict(), "perturbations": ["noise"], "severities": [3]}
    data = {"name": "shapes", "split": "validation", "tasks": ["moving direction"], "n": 1}
    config = {"model": "shapes", "dataset": data, "figures": False, "experiments": [entry]}
    ran = vl.run(config, tmp_path / "run").results["stress"].table
    called = found.table.query("task == 'moving direction' and condition == 'full' and perturbation == 'noise'")
    mine = ran.query("condition == 'full' and perturbation == 'noise'")
    assert mine["p_answer"].tolist() == pytest.approx(called["p_answer"].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"severities": [0]}, r"severities are \[0\]: give some of 1, 2 and 3.*0, nothing perturbed"),
        ({"severities": [float("nan")]}, r"severities are \[nan\]"),
        ({"severities": [1, 1]}, "each once"),
        ({"severities": 2}, "severities are 2"),
        ({"perturbations": ["nois"]}, "unknown perturbation 'nois'; did you mean 'noise'"),
        ({"perturbations": "noise"}, "perturbations are 'noise': give a list"),
        ({"perturbations": ["noise", "noise"]}, "is there twice"),
        ({"perturbations": []}, "give a list"),
        ({"steps": 0}, "steps = 0"),
        ({"compiled": 1}, "compiled = 1: give True or False"),
        ({"pathway": {}}, "the pathway is {}: give one"),
        ({"pathway": None}, "the pathway is None: give one"),
        ({"pathway": {"full": PATHWAY}}, "'full' is the model with nothing cut"),
        ({"pathway": vl.Pathway(32, [1], [1], [1])}, "is for 32 layers, the model has 12"),
        ({"pathway": {"n_layers": 12, "across": [1]}}, "across"),
    ],
)
def test_what_is_refused(model, monkeypatch, options: dict[str, Any], said: str) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(VideolensError, match=said):
        StressExperiment(model, **{"pathway": PATHWAY} | options)


def test_questions_that_cannot_be_judged_are_refused(model, questions) -> None:
    with pytest.raises(QuestionError, match="no known answer"):
        vl.stress(model, PATHWAY, replace(questions[0], answer=None), perturbations=["noise"], progress=False)
    by_hand = replace(model.prompt(questions[0]), question=None)
    with pytest.raises(QuestionError, match="made by hand"):
        vl.stress(model, PATHWAY, [by_hand], perturbations=["noise"], progress=False)


def test_what_is_not_there_is_said(found) -> None:
    with pytest.raises(SelectionError, match="did you mean 'noise'"):
        found.accuracy("nois", 3)
    with pytest.raises(SelectionError, match="severity"):
        found.accuracy("noise", 2)
    with pytest.raises(SelectionError, match="chosen"):
        found.flips("noise", 3, condition="chose")
    with pytest.raises(SelectionError, match="task"):
        found.accuracy(task="moving")
    assert set(found.settings.right) == set(ASKED) <= set(PERTURBATIONS)
