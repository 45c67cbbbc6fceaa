"""Patch maps: every number is a plain hooked forward's, TransformerLens' own tools agree, the bundled model's map is
what it should be, and a map can be written, read and drawn."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.asking import in_parts
from helpers.models import tiny_inputs
from helpers.prompts import SPANS, tiny_prompt
from helpers.report import letter_model, questions
from transformer_lens import patching

import videolens as vl
from videolens.errors import ModelError, PromptError, QuestionError, SelectionError, VideolensError
from videolens.experiments.common.asking import ask_all
from videolens.experiments.patch_map.experiment import PatchMapExperiment
from videolens.experiments.patch_map.table import ClipRow, PatchRow, RunRow
from videolens.experiments.patch_map.units import check_over, units_of
from videolens.interventions.sites import named_site

N_LAYERS, N_POS = 3, 25


@pytest.fixture(scope="module")
def frames(model: vl.HookedVideoTransformer, clean: vl.Prompt, corrupted: vl.Prompt) -> vl.PatchMap:
    return vl.patch_map(model, clean, corrupted, verify=True, progress=False)


@pytest.fixture(scope="module")
def asked() -> tuple[vl.HookedVideoTransformer, list[tuple[vl.Question, vl.Question]]]:
    """A model with a tokenizer, and three pairs of one layout: clips of noise and their reversals."""
    return letter_model(), [(question, question.reversed()) for question in questions()[::2]]


def last(model: vl.HookedVideoTransformer, prompt: vl.Prompt, *patches: vl.Patch) -> torch.Tensor:
    with torch.no_grad():
        hooks = [hook for patch in patches for hook in patch.hooks(prompt)]
        return model.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1].double()


# -- the numbers


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_every_number_is_that_of_a_plain_hooked_forward(model, clean, corrupted, direction) -> None:
    found = vl.patch_map(model, clean, corrupted, direction=direction, over=["frame 1", "stem"], progress=False)
    base, source = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    run = vl.SourceRun.record(model, source, "resid_pre")
    of_base, of_source = last(model, base), last(model, source)

    def measured(logits: torch.Tensor) -> tuple[float, float, float]:
        expected = of_source.softmax(-1)
        kl = (expected * (expected.log() - logits.log_softmax(-1))).sum()
        # the clean answer is option A, token 5, the corrupted one option B, token 6
        return float(logits[5] - logits[6]), float(logits.softmax(-1)[5]), float(kl)

    before, after = measured(of_base), measured(of_source)
    table = found.to_dataframe()
    assert tuple(table.columns) == PatchRow._fields and len(table) == N_LAYERS * 2
    for row in table.itertuples():
        logits = last(model, base, vl.Patch("resid_pre", row.layer, row.unit, source=run))
        expected = measured(logits)
        assert (row.logit_diff, row.probability, row.kl) == pytest.approx(expected, abs=1e-3)
        effects = [(x - b) / (a - b) for x, b, a in zip(expected, before, after, strict=True)]
        assert (row.logit_diff_effect, row.probability_effect, row.kl_effect) == pytest.approx(effects, abs=1e-3)
        assert (row.site, row.direction, row.pair) == ("resid_pre", direction, "pair 0")
    assert list(table["n_positions"]) == [4, 2] * N_LAYERS and list(table["layer"]) == [0, 0, 1, 1, 2, 2]
    assert table["logit_diff_effect"].abs().max() > 0.1, "in this model patches matter"
    runs = found.runs.iloc[0]
    of_clean, of_corrupted = (after, before) if direction == "denoise" else (before, after)
    assert (runs["logit_diff_clean"], runs["probability_clean"]) == pytest.approx(of_clean[:2], abs=1e-3)
    assert (runs["logit_diff_corrupted"], runs["probability_corrupted"]) == pytest.approx(of_corrupted[:2], abs=1e-3)
    assert runs["kl"] == pytest.approx(before[2], abs=1e-3) and after[2] == pytest.approx(0, abs=1e-9)
    assert (runs["says_clean"], runs["clean_answer"], runs["other_answer"]) == (
        str(int(last(model, clean).argmax())),
        "5",
        "6",
    )


@pytest.mark.parametrize(
    ("site", "over"),
    [
        ("resid_pre", "frame"),
        ("resid_post", "role"),
        ("resid_mid", "token"),
        ("attn_out", "patch"),
        ("mlp_out", "frame"),
        ("z", "head"),
        ("q", "frame"),
        ("k", "head"),
        ("v", "token"),
        ("pattern", "head"),
        ("pattern", "role"),
        ("video_tokens", "patch"),
        ("video_tokens", "role"),
    ],
)
def test_the_engine_gives_what_plain_forwards_give(model, clean, corrupted, site, over) -> None:
    options = {"site": site, "over": over, "progress": False}
    exact = vl.patch_map(model, clean, corrupted, **options)
    full = vl.patch_map(model, clean, corrupted, engine="full", **options)
    for column in PatchRow._fields[-6:]:
        np.testing.assert_allclose(exact.table[column], full.table[column], atol=2e-4, rtol=1e-3)
    assert exact.settings.forwards < full.settings.forwards == full.settings.full_forwards
    assert model.cfg.attention_path == "auto" and not model.list_hooks()
    assert len(exact.settings.layers) == (1 if site == "video_tokens" else N_LAYERS)


def test_transformer_lens_own_functions_agree(model, clean, corrupted) -> None:
    _, cache = model.run_with_cache(clean)
    metric = lambda logits: logits[0, -1, 5] - logits[0, -1, 6]  # noqa: E731

    def ours(**options) -> np.ndarray:
        found = vl.patch_map(model, clean, corrupted, progress=False, **options)
        return found.table["logit_diff"].to_numpy().reshape(N_LAYERS, -1)

    for site in ("resid_pre", "resid_mid", "attn_out", "mlp_out"):
        theirs = getattr(patching, f"get_act_patch_{site}")(model, corrupted, cache, metric)
        np.testing.assert_allclose(ours(site=site, over="token"), theirs.detach(), atol=1e-3)
    for theirs_is, site in (("out", "z"), ("q", "q"), ("k", "k"), ("v", "v"), ("pattern", "pattern")):
        theirs = getattr(patching, f"get_act_patch_attn_head_{theirs_is}_all_pos")(model, corrupted, cache, metric)
        np.testing.assert_allclose(ours(site=site, over="head"), theirs.detach(), atol=1e-3)
        if theirs_is not in ("out", "v"):
            continue
        by_position = getattr(patching, f"get_act_patch_attn_head_{theirs_is}_by_pos")(model, corrupted, cache, metric)
        head = by_position.shape[2] - 1
        np.testing.assert_allclose(
            ours(site=site, over="token", heads=head), by_position[..., head].detach(), atol=1e-3
        )


def test_what_a_patch_of_everything_does(model, clean, corrupted) -> None:
    whole = vl.patch_map(model, clean, corrupted, over=["all"], progress=False)
    assert np.allclose(whole.effects(), 1, atol=1e-4) and np.allclose(whole.effects("kl"), 1, atol=1e-4)
    back = vl.patch_map(model, clean, corrupted, over=["all"], direction="noise", progress=False)
    assert np.allclose(back.effects("probability"), 1, atol=1e-4)
    # the value is then the other run's
    assert np.allclose(back.table["logit_diff"], whole.runs["logit_diff_corrupted"][0], atol=1e-3)


def test_the_map_says_what_it_cost_and_that_it_was_verified(frames: vl.PatchMap) -> None:
    made = frames.settings
    assert made.full_forwards == 3 * 3 + 1 and 1 < made.forwards < 6 and made.verified < 1e-4
    assert (made.layers, made.over, made.engine, made.dtype) == ((0, 1, 2), "frame", "exact", "float32")
    assert {"videolens", "torch"} <= set(made.versions)
    assert repr(frames) == f"PatchMap({made.model!r}, denoise resid_pre in 3 layers, 3 × frame, 1 pair)"


# -- what it goes over


def test_units(clean) -> None:
    tokens, resid, z = clean.tokens, named_site("resid_pre"), named_site("z")

    def units(over, site=resid, places=None, heads=()):
        return units_of(check_over(over, site), tokens, site, places=places, heads=heads)

    roles = units("role")
    assert [unit.name for unit in roles] == ["system", "video", "glue", "stem", "option", "last"]
    assert sorted(p for unit in roles for p in unit.positions) == list(range(N_POS))
    assert [unit.positions for unit in units("frame")] == [(4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)]
    assert [(unit.name, unit.label) for unit in units("token")[3:5]] == [("3", "system"), ("4", "f0 r0 c0")]
    assert [unit.name for unit in units("patch")][-1] == "f2 r1 c1" and len(units("patch")) == 12
    assert [unit.name for unit in units("role", named_site("video_tokens"))] == ["video"]
    heads = units("head", z, places="stem", heads=[1, 3])
    assert [(unit.name, unit.positions, unit.heads) for unit in heads] == [
        ("head 1", (18, 19), (1,)),
        ("head 3", (18, 19), (3,)),
    ]
    kept = units("frame", places="frame 1 | stem")
    assert [(unit.name, unit.positions) for unit in kept] == [("frame 1", (8, 9, 10, 11))]
    named = units({"first two": "frame 0 | frame 1", "end": "last"})
    assert [(unit.name, unit.label, len(unit.positions)) for unit in named] == [
        ("frame 0 | frame 1", "first two", 8),
        ("last", "end", 1),
    ]
    with pytest.raises(SelectionError, match="'separator' has no positions"):
        units(["stem", "separator"])
    with pytest.raises(SelectionError, match="leaves nothing to patch: positions='stem' holds none of it"):
        units("frame", places="stem")


def test_layers_heads_and_positions_keep_to_a_part(model, clean, corrupted) -> None:
    options = {"site": "z", "over": "frame", "progress": False}
    part = vl.patch_map(model, clean, corrupted, layers=[2, 0], heads=[1], positions="frame 0 | f1 r0 c0", **options)
    assert part.units == ["frame 0", "frame 1"] and list(part.table["n_positions"]) == [4, 1, 4, 1]
    assert part.settings.layers == (0, 2) and part.settings.positions == "frame 0 | f1 r0 c0"
    run = vl.SourceRun.record(model, clean, "z")
    logits = last(model, corrupted, vl.Patch("z", 2, [8], source=run, heads=1))
    assert part.table["logit_diff"].iloc[3] == pytest.approx(float(logits[5] - logits[6]), abs=1e-3)
    assert vl.patch_map(model, clean, corrupted, positions=[4, 20], **options).settings.positions == "(4, 20)"


# -- what it is measured by


def test_which_tokens_the_logit_difference_is_between(model, clean, corrupted) -> None:
    def answers(clean, corrupted, **options):
        found = vl.patch_map(model, clean, corrupted, over=["last"], layers=0, progress=False, **options)
        return found.runs["clean_answer"][0], found.runs["other_answer"][0], found

    assert answers(clean, corrupted)[:2] == ("5", "6")
    assert answers(corrupted, clean)[:2] == ("6", "5")
    assert answers(clean, corrupted, answers=(7, 9))[:2] == ("7", "9")
    # the same answer, or one that is not known: the best of the clean prompt's other options
    three = replace(clean, option_tokens=(5, 6, 8))
    for other in (replace(corrupted, answer_token=5), replace(corrupted, answer_token=None)):
        right, wrong, found = answers(three, other)
        assert (right, wrong) == ("5", "6 or 8")
        logits = last(model, clean)
        expected = float(logits[5] - logits[[6, 8]].max())
        assert found.runs["logit_diff_clean"][0] == pytest.approx(expected, abs=1e-4)


def test_a_logit_difference_that_cannot_be_defined(model, clean, corrupted, monkeypatch) -> None:
    monkeypatch.setattr(type(model), "run_layers", lambda *a, **k: pytest.fail("the model ran"))
    nobody_knows = replace(clean, answer_token=None)
    with pytest.raises(VideolensError, match=r"the clean prompt's answer is not known.*answers="):
        vl.patch_map(model, nobody_knows, corrupted)
    alone = replace(clean, option_tokens=())
    with pytest.raises(VideolensError, match=r"the corrupted prompt's answer is the clean one's too.*answers="):
        vl.patch_map(model, alone, replace(corrupted, answer_token=5))
    with pytest.raises(VideolensError, match="the corrupted prompt's answer is not known"):
        vl.patch_map(model, alone, replace(corrupted, answer_token=None))
    for answers, says in {
        (5,): "give two",
        (5, 5): "one token",
        (5, 96): "token 96 is outside the vocabulary of 96",
    }.items():
        with pytest.raises(VideolensError, match=says):
            vl.patch_map(model, clean, corrupted, answers=answers)


def test_answers_may_be_text(asked) -> None:
    model, ((clean, corrupted), *_) = asked
    found = vl.patch_map(model, clean, corrupted, answers=("B", "D"), over=["last"], layers=2, progress=False)
    assert (found.runs["clean_answer"][0], found.runs["other_answer"][0]) == ("B", "D")


@pytest.mark.parametrize("edit", [("shuffled", 1), ("frozen", 2), ("swapped", 0, 2), ("blank",)], ids=lambda e: e[0])
def test_any_counterfactual_is_a_pair(asked, edit) -> None:
    model, ((clean, _), *_) = asked
    found = vl.patch_map(model, clean, clean.counterfactual(*edit), over="frame", layers=0, progress=False)
    # nobody says what is right then, so the clean answer stands against all other options
    assert (found.runs["clean_answer"][0], found.runs["other_answer"][0]) == ("A", "B or C or D")
    whole = vl.patch_map(model, clean, clean.counterfactual(*edit), site="video_tokens", over="role", progress=False)
    np.testing.assert_allclose(whole.table["kl"], 0, atol=1e-6)


def test_runs_that_do_not_differ_have_no_effects(model, clean) -> None:
    other = replace(clean, answer_token=6)
    found = vl.patch_map(model, clean, other, progress=False)
    assert found.table[["logit_diff_effect", "probability_effect", "kl_effect"]].isna().all(axis=None)
    assert np.allclose(found.table["logit_diff"], found.runs["logit_diff_clean"][0], atol=1e-3)
    with pytest.raises(VideolensError, match="do not differ in logit difference"):
        found.figure()


# -- several pairs


def test_pairs_are_patched_one_by_one_and_averaged(asked) -> None:
    model, pairs = asked
    found = vl.patch_map(model, (pair for pair in pairs), over="role", progress=False)
    assert (found.n, found.pairs) == (3, ["q0", "q2", "q4"]) and list(found.runs["task"]) == ["moving"] * 3
    alone = vl.patch_map(model, *pairs[1], over="role", progress=False)
    np.testing.assert_allclose(found.effects(pair="q2"), alone.effects(), atol=1e-3)
    each = np.stack([found.effects(pair=name) for name in found.pairs])
    np.testing.assert_allclose(found.effects(), each.mean(axis=0))
    assert list(found.clips.groupby(["pair", "clip"]).size()) == [3] * 6
    with pytest.raises(SelectionError, match="did you mean 'q0'"):
        found.effects(pair="q00")


def test_pairs_that_do_not_belong_together(asked) -> None:
    model, pairs = asked
    with pytest.raises(VideolensError, match="'q0' of task 'moving' is there twice: give every question its own id"):
        vl.patch_map(model, [pairs[0], pairs[0]], progress=False)
    longer = questions()[1]
    mixed = [pairs[0], (longer, longer.reversed())]
    assert vl.patch_map(model, mixed, over="role", progress=False).n == 2
    with pytest.raises(VideolensError, match=r"pair 'q1' has the units .* over='role' asks least"):
        vl.patch_map(model, mixed, over="token", layers=0, progress=False)
    with pytest.raises(
        PromptError, match=r"the clean prompt has \d+ positions, the corrupted one \d+ \(stem: 8 and 5\)"
    ):
        vl.patch_map(model, pairs[0][0], longer, progress=False)


# -- in a run


def test_questions_are_held_against_their_own_counterfactuals(asked) -> None:
    model, pairs = asked
    clean = [one for one, _ in pairs]
    found = ask_all(PatchMapExperiment(model, over="role"), clean, progress=False)
    by_hand = vl.patch_map(model, pairs, over="role", progress=False)
    assert found.table.equals(by_hand.table) and found.runs.equals(by_hand.runs) and found.clips.equals(by_hand.clips)
    assert (found.n, found.tasks, found.settings.n_asked) == (3, ["moving"], 3)
    swapped = ask_all(PatchMapExperiment(model, layers=0, counterfactual=["swapped", 0, 2]), clean[:1], progress=False)
    edited = clean[0].counterfactual("swapped", 0, 2)
    assert swapped.table.equals(vl.patch_map(model, clean[0], edited, layers=0, progress=False).table)
    with pytest.raises(QuestionError, match="did you mean 'reversed'"):
        ask_all(PatchMapExperiment(model, counterfactual="reverse"), clean[:1], progress=False)
    with pytest.raises(VideolensError, match="did you mean 'exact'"):
        PatchMapExperiment(model, engine="exat")
    for item in (model.prompt(clean[0]), clean, "q0", (clean[0],)):
        with pytest.raises(VideolensError, match=r"a pair is \(clean, corrupted\), two Questions or Prompts; got"):
            list(PatchMapExperiment(model).prompts(item))


def test_in_parts_it_is_the_same(asked) -> None:
    model, pairs = asked
    experiment = PatchMapExperiment(model, over="role", layers=[0, 2])
    whole, parts = ask_all(experiment, pairs, progress=False), in_parts(experiment, pairs)
    for mine, theirs in ((parts.table, whole.table), (parts.runs, whole.runs), (parts.clips, whole.clips)):
        assert mine.equals(theirs)
    assert parts.settings.skipped == whole.settings.skipped == () and parts.settings.layers == (0, 2)
    assert experiment.questions_in(whole.table) == experiment.questions_in(whole.clips) == 3
    longer = questions()[1]
    with pytest.raises(VideolensError, match=r"pair 'q1' has the units .* over='role' asks least"):
        in_parts(PatchMapExperiment(model, over="token", layers=0), [pairs[0], (longer, longer.reversed())])


def test_cost_is_the_mean_over_pairs_and_the_worst_that_was_verified(asked) -> None:
    model, pairs = asked
    longer = questions()[1]
    several = [pairs[0], (longer, longer.reversed()), pairs[1]]
    made = vl.patch_map(model, several, over="role", verify=True, progress=False).settings
    alone = [vl.patch_map(model, *pair, over="role", verify=True, progress=False).settings for pair in several]
    assert alone[0].forwards != alone[1].forwards, "pairs of unequal length cost unequally"
    assert made.forwards == pytest.approx(np.mean([each.forwards for each in alone]))
    assert made.full_forwards == pytest.approx(np.mean([each.full_forwards for each in alone]))
    assert made.verified == max(each.verified for each in alone) and made.seconds > 0


# -- misuse


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"site": "resid"}, ModelError, "unknown hook point to patch 'resid'; did you mean"),
        ({"over": "frames"}, VideolensError, "did you mean 'frame'.*or a list of selections"),
        ({"over": []}, VideolensError, "at least one selection"),
        ({"over": ["stem", "stem"]}, VideolensError, "each once"),
        ({"over": ["fram 1"]}, SelectionError, "did you mean 'frame 1'"),
        ({"over": "head"}, VideolensError, "'resid_pre' does not tell heads apart: over='head' takes 'z'"),
        ({"direction": "denoising"}, VideolensError, "did you mean 'denoise'"),
        (
            {"metric": "logits"},
            VideolensError,
            "unknown metric 'logits'; known: 'logit difference', 'probability', 'kl'",
        ),
        ({"layers": [0, 3]}, VideolensError, "layer 3 is outside the model: its layers are 0 … 2"),
        ({"layers": []}, VideolensError, "layers are empty"),
        ({"site": "video_tokens", "layers": 1}, VideolensError, "belongs to no layer"),
        ({"heads": 1}, VideolensError, "does not tell heads apart"),
        ({"site": "v", "heads": 2}, VideolensError, "head 2 is outside the model: its heads are 0 … 1"),
        ({"site": "z", "heads": []}, VideolensError, "heads are empty"),
        ({"positions": [30]}, SelectionError, "position 30 is outside the prompt: its positions are 0 … 24"),
        ({"positions": "frame 9"}, SelectionError, "unknown selection 'frame 9'"),
    ],
)
def test_misuse_is_one_clear_error_before_anything_runs(
    model, clean, corrupted, monkeypatch, options, error, says
) -> None:
    monkeypatch.setattr(type(model), "run_layers", lambda *a, **k: pytest.fail("the model ran"))
    with pytest.raises(error, match=says):
        vl.patch_map(model, clean, corrupted, progress=False, **options)


def test_what_is_no_pair(model, clean, corrupted) -> None:
    with pytest.raises(VideolensError, match="give the clean question's counterfactual"):
        vl.patch_map(model, clean)
    with pytest.raises(
        VideolensError, match="one clean and one corrupted Question or Prompt, or one list of such pairs"
    ):
        vl.patch_map(model, [(clean, corrupted)], corrupted)
    with pytest.raises(VideolensError, match="there are no pairs"):
        vl.patch_map(model, [], progress=False)
    with pytest.raises(PromptError, match=r"a pair needs a single prompt, got a batch of 2: take one, prompt\[0\]"):
        vl.patch_map(model, clean, tiny_prompt(model, rows=2))
    ids, _, pixels = tiny_inputs(frames=4)
    longer = {name: range(at.start + 4, at.stop + 4) for name, at in SPANS.items()}
    other = model.prompt_from_ids(ids, pixels, longer)
    with pytest.raises(
        PromptError, match=r"the clean prompt has 25 positions, the corrupted one 29 \(frame 3: 0 and 4\)"
    ):
        vl.patch_map(model, clean, other)
    with pytest.raises(VideolensError, match="max_memory of 1,000 bytes is too small"):
        vl.patch_map(model, clean, corrupted, max_memory=1000, progress=False)


# -- the result


def test_saved_and_loaded_is_the_same(asked, tmp_path) -> None:
    model, pairs = asked
    found = vl.patch_map(model, *pairs[0], progress=False)
    assert found.save(tmp_path / "map") == tmp_path / "map"
    again = vl.PatchMap.load(tmp_path / "map")
    assert again.settings == found.settings
    for mine, theirs in ((again.table, found.table), (again.runs, found.runs), (again.clips, found.clips)):
        assert mine.equals(theirs)
    assert json.loads((tmp_path / "map" / "patches.json").read_text())["over"] == "frame"
    assert words(again.figure()) == words(found.figure())
    with pytest.raises(VideolensError, match="already holds a patch map"):
        found.save(tmp_path / "map")
    with pytest.raises(VideolensError, match=r"patches\.parquet is missing"):
        vl.PatchMap.load(tmp_path)


def test_a_map_that_contradicts_itself_is_refused(frames: vl.PatchMap) -> None:
    def made(**parts):
        table, runs, clips = frames.table.copy(), frames.runs.copy(), frames.clips.copy()
        return vl.PatchMap(**{"table": table, "runs": runs, "clips": clips, "settings": frames.settings} | parts)

    made()
    table = frames.table
    cases = {
        "the columns": {"table": table.drop(columns="kl")},
        "has no row": {"table": table[:0]},
        "the clips of a patch map has the columns": {"clips": frames.runs},
        "a pair is there twice": {"runs": frames.runs.iloc[[0, 0]]},
        "units in order": {"table": table.iloc[::-1]},
        "in one direction": {"table": table.assign(direction="sideways")},
        "outside 0 … 1": {"table": table.assign(probability=2.0)},
        "a KL below 0": {"table": table.assign(kl=float("nan"))},
        "logit_diff_effect is not": {"table": table.assign(logit_diff_effect=0.5)},
        "unknown metric": {"settings": replace(frames.settings, metric="loss")},
    }
    for says, parts in cases.items():
        with pytest.raises(VideolensError, match=says):
            made(**parts)
    assert tuple(frames.runs.columns) == RunRow._fields
    assert tuple(frames.clips.columns) == ClipRow._fields and len(frames.clips) == 0


# -- figures


def words(figure) -> str:
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " | ".join(found)


def test_layers_by_frames_with_the_frames_beneath(asked, tmp_path) -> None:
    model, ((clean, corrupted), *_) = asked
    found = vl.patch_map(model, clean, corrupted, progress=False)
    figure = found.figure()
    figure.savefig(tmp_path / "figure.png")
    heat, *strips, _bar = figure.axes
    image = heat.images[0]
    np.testing.assert_allclose(image.get_array(), found.effects())
    assert image.origin == "lower" and image.get_extent() == [-0.5, 2.5, -0.5, 2.5]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["1", "2", "3"]
    for strip, video in zip(strips, (clean.video, corrupted.video), strict=True):
        for shown, frame in zip(strip.images, video.frames, strict=True):
            assert np.array_equal(shown.get_array(), frame)
    said = words(figure)
    for text in ("clean", "corrupted", "frame 2", "from 1", "n = 1 pair (q0)", "0 %: the corrupted run as it is"):
        assert text in said
    assert "resid_pre of the clean run, copied into the corrupted run" in said


def test_frames_are_those_the_model_saw_cropped_as_it_saw_them(asked) -> None:
    """So that patches drawn over them lie over what they were made of."""
    model, _ = asked
    wide = vl.Video.from_array(torch.randint(0, 256, (3, 16, 24, 3), dtype=torch.uint8), fps=2.0)
    question = vl.Question(wide, "where ?", ["left", "right"], "left", reversed_answer="right")
    found = vl.patch_map(model, question, question.reversed(), layers=0, progress=False)
    shown = found.figure().axes[1].images
    for picture, frame in zip(shown, wide.frames[:, :, 4:20], strict=True):
        assert np.array_equal(picture.get_array(), frame)


@pytest.mark.parametrize("metric", ["logit difference", "probability", "kl"])
@pytest.mark.parametrize(
    "options",
    [
        {"over": "role"},
        {"over": "token", "direction": "noise"},
        {"over": "patch", "layers": [0, 2]},
        {"over": "patch", "direction": "noise", "site": "video_tokens"},
        {"over": "head", "site": "z", "positions": "stem"},
        {"over": {"both": "frame 0 | frame 1", "text": "stem"}},
        {"over": ["frame 2", "last"]},
    ],
    ids=lambda options: "-".join(map(str, options.values()))[:30],
)
def test_every_kind_draws(asked, options, metric, tmp_path) -> None:
    model, ((clean, corrupted), *_) = asked
    found = vl.patch_map(model, clean, corrupted, metric=metric, progress=False, **options)
    figure = found.figure()
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 8_000
    said = words(figure)
    assert ("KL" in said) == (metric == "kl") and ("probability" in said) == (metric == "probability")
    if options["over"] == "patch":
        panels = figure.axes[:-1]
        assert len(panels) == 3 * len(found.settings.layers), "one panel for each frame and layer"
        # bottom left: the first layer, frame 0
        bottom = panels[-3].images[-1].get_array()
        np.testing.assert_allclose(bottom.ravel(), found.effects()[0, :4])


def test_prompts_without_their_video_and_several_pairs_have_no_frames_beneath(frames, asked) -> None:
    assert len(frames.figure().axes) == 2
    model, pairs = asked
    found = vl.patch_map(model, pairs, layers=[0, 2], progress=False)
    assert len(found.figure().axes) == 2 and "n = 3 pairs (mean)" in words(found.figure())
    one = found.figure("kl", pair="q2", layers=2)
    assert len(one.axes) == 4 and one.axes[0].images[0].get_array().shape == (1, 3)
    assert [label.get_text() for label in one.axes[0].get_yticklabels()] == ["3"]
    for options, says in (
        ({"layers": 1}, "unknown layer in this patch map '1'"),
        ({"pair": "q9"}, "unknown pair"),
        ({"metric": "loss"}, "unknown metric"),
    ):
        with pytest.raises(VideolensError, match=says):
            found.figure(**options)


# -- the bundled model


def test_the_examples_in_the_documentation_run(tmp_path, monkeypatch) -> None:
    text = (Path(__file__).parent.parent / "docs" / "patching.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "docs/patching.md", "exec"), {"__name__": "docs"})
    assert (tmp_path / "patched.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def moving() -> tuple[vl.HookedVideoTransformer, list[tuple[vl.Question, vl.Question]]]:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    found = vl.load_dataset("shapes", split="test", task="moving direction", n=3)
    return model, [(question, question.reversed()) for question in found]


def test_the_clean_video_tokens_restore_the_clean_answer(moving) -> None:
    """In a clip and its reversal only the video differs, so its tokens are all that it takes."""
    model, pairs = moving
    found = vl.patch_map(model, pairs, site="video_tokens", over="role", progress=False)
    assert (found.runs["says_clean"] == found.runs["clean_answer"]).all()
    assert (found.runs["says_corrupted"] == found.runs["other_answer"]).all()
    for metric in ("logit difference", "probability", "kl"):
        np.testing.assert_allclose(found.effects(metric), 1, atol=1e-3)
    clean, corrupted = (model.prompt(question) for question in pairs[0])
    patch = vl.Patch("video_tokens", source=vl.SourceRun.record(model, clean, "video_tokens"))
    assert int(last(model, corrupted, patch).argmax()) == clean.answer_token


def test_where_the_direction_lives(moving) -> None:
    """First in the video, then in the question and its options, then at the last token; sums of disjoint roles."""
    model, pairs = moving
    found = vl.patch_map(model, pairs, over=["video", "stem | options", "last"], progress=False)
    video, question, end = found.effects().T
    assert (video[:6] > 0.98).all() and (video[8:] < 0.1).all()
    assert (np.abs(question[:6]) < 0.02).all() and question[9] > 0.95
    assert (np.abs(end[:9]) < 0.02).all() and end[11] > 0.2
    assert found.settings.forwards < 0.45 * found.settings.full_forwards


def test_a_map_over_frames_equals_plain_hooked_forwards(moving) -> None:
    model, pairs = moving
    clean, corrupted = (model.prompt(question) for question in pairs[0])
    found = vl.patch_map(model, clean, corrupted, direction="noise", progress=False)
    source = vl.SourceRun.record(model, corrupted, "resid_pre")
    spread = float(last(model, clean).std())
    for row in found.table.iloc[::7].itertuples():
        logits = last(model, clean, vl.Patch("resid_pre", row.layer, row.unit, source=source))
        token, other = clean.answer_token, corrupted.answer_token
        assert row.logit_diff == pytest.approx(float(logits[token] - logits[other]), abs=2e-4 * spread)
    moved = (found.table["logit_diff"] - found.runs["logit_diff_clean"][0]).abs().max()
    assert moved > 100 * 2e-4 * spread, "patches move what is measured far more than rounding does"
