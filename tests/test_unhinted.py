"""Training without hints: what is told can be answered, no layer is preferred, and the tower is the old one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlavaNextVideoForConditionalGeneration

import videolens as vl
from training import checkpoint, emergence, probes, vocabulary
from training.data import Clips, Packer, make_clips
from training.hinted import shuffled
from training.language import forward
from training.optimizer import Muon, Optimizer
from training.told import N_TEXT, make_told
from training.unhinted import Unhinted, first_half
from videolens.datasets.shapes_tasks import DIRECTIONS, TEMPORAL_TASKS


@pytest.fixture(scope="module")
def packer():
    return Packer(vocabulary.build(), slots=2, n_frames=0, n_text=N_TEXT)


@pytest.fixture(scope="module")
def told(packer):
    return make_told(packer, 40, seed=0)


def test_every_question_about_a_text_is_answered_in_it(packer, told):
    for text, asks in zip(told.text, told.asks, strict=True):
        said = packer.tokenizer.decode(text)
        assert asks and all(said.count(f" {ask.completion} {ask.answer}.") == 1 for ask in asks)
        assert len({ask.completion for ask in asks}) == len(asks), "two sentences would answer one question"
    known = {ask.task for asks in told.asks for ask in asks}
    assert set(TEMPORAL_TASKS) < known and len(known) == 10


def test_a_text_stands_where_the_video_would(packer, told):
    batch = packer.batch(told, np.arange(4), np.random.default_rng(0), flip=False)
    shown = Packer(packer.tokenizer, slots=2, n_frames=1)
    before = shown.prefix.index(packer.video)
    assert not batch.video.any() and batch.n_prefix == before + N_TEXT
    assert batch.input_ids[0, :before].tolist() == shown.prefix[:before]
    assert torch.equal(batch.input_ids[:, before : batch.n_prefix], told.text[:4])


@torch.no_grad()
def test_questions_see_the_text(packer, told):
    model = checkpoint.new_model(packer.tokenizer, seed=0, depth=2)
    batch = packer.batch(told, np.arange(2), np.random.default_rng(0), flip=False)
    with torch.compiler.set_stance("force_eager"):
        logits, _ = forward(model, batch)
        batch.input_ids[0, batch.n_prefix - 2] = packer.newline
        other, _ = forward(model, batch)
    first = batch.target_at[:, 0] == 0
    assert (logits != other)[first].any() and torch.equal(logits[~first], other[~first])


def test_muon_moves_every_matrix_of_the_decoder_alike():
    """Its steps are orthogonal, so each matrix moves as far as its shape says, whatever its gradient and its layer."""
    model = checkpoint.new_model(vocabulary.build(), seed=0, depth=3)
    layers = model.model.language_model.layers
    before = [layer.self_attn.q_proj.weight.detach().clone() for layer in layers]
    optimizer = Optimizer(model, torch.nn.Linear(2, 2), lr=1e-3, muon=1e-2)
    optimizer.set_rate(1.0)
    generator = torch.Generator().manual_seed(0)
    for i, layer in enumerate(layers):
        weight = layer.self_attn.q_proj.weight
        weight.grad = torch.randn(weight.shape, generator=generator) * 10.0**-i
    optimizer.step()
    steps = [(layer.self_attn.q_proj.weight - old * (1 - 2e-4)) for layer, old in zip(layers, before, strict=True)]
    lengths = [float(step.detach().norm()) for step in steps]
    assert max(lengths) < 1.1 * min(lengths)
    assert lengths[0] == pytest.approx(1e-2 * 0.2 * 128, rel=0.2)  # a root mean square of 0.2, as AdamW's
    singular = torch.linalg.svdvals(steps[0].detach())
    assert singular[0] < 3 * singular[len(singular) // 2], "one direction is no better than another"


@pytest.mark.parametrize("shape", [(128, 256), (64, 128), (256, 128)])
def test_our_muon_steps_as_torchs(shape):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    settings = {"lr": 3e-3, "weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = Muon([ours], **settings), torch.optim.Muon([theirs], **settings)
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs - 1).norm()
    assert (ours - theirs).norm() < 0.02 * moved, "torch takes its products in bfloat16"
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()


def test_an_answer_said_aloud_stands_before_the_place_of_its_letter():
    packer = Packer(vocabulary.build(), slots=1, n_frames=0, n_text=N_TEXT, aloud=1.0)
    texts = make_told(packer, 30, seed=1)
    rng = np.random.default_rng(0)
    seen = 0
    for i, asks in enumerate(texts.asks):
        said = [f"ASSISTANT: {ask.completion} {ask.answer}\nBest option:(" for ask in asks]
        for branch in packer.branches(texts, i, rng, backwards=False, letters=1.0):
            assert len(branch.text) + len(branch.answer) - 1 <= packer.n_slot
            if branch.kind.startswith("aloud"):
                text = packer.tokenizer.decode(branch.text)
                word = next(s for s in said if text.endswith(s))[len("ASSISTANT: ") : -len("\nBest option:(")]
                letter = packer.tokenizer.decode(branch.answer)
                option = text.split(f"({letter}) ")[1].split(" (")[0].split(" \n")[0]
                assert word.endswith(" " + option)
                seen += 1
            else:
                assert branch.kind.startswith("open"), "aloud = 1: no letter without the words"
    assert seen > 30


def test_four_frames_are_asked_what_they_tell(packer):
    clips = make_clips(
        ["moving direction", "action sequence", "object count"], 9, 0, lambda frames: torch.zeros(len(frames), 16, 64)
    )
    kept = first_half(clips, ("moving direction", "action sequence"))
    assert kept.task == ["moving direction", "action sequence"] * 3 and len(kept.features) == 6
    assert all(len(asks) == 1 and asks[0].answer in DIRECTIONS and "last" not in asks[0].stem for asks in kept.asks)
    four = Packer(packer.tokenizer, slots=1, n_frames=4, n_slot=22)
    batch = four.batch(kept, np.arange(6), np.random.default_rng(0), letters=0.0)
    assert len(batch.target) == 6 and batch.video.sum() == 4 * 16


def test_the_tower_is_the_bundled_one_and_the_decoder_is_not(tmp_path):
    run = Unhinted(tmp_path, depth=3, seed=1)
    run.tower()
    theirs = LlavaNextVideoForConditionalGeneration.from_pretrained(vl.bundled_path("shapes")).state_dict()
    ours = run.model.state_dict()
    same = {key for key, value in ours.items() if torch.equal(value, theirs[key])}
    seeing = {key for key in ours if "vision_tower" in key or "multi_modal_projector" in key}
    plain = {key for key in ours if "norm" in key}  # norms begin at one, and may have stayed there
    assert seeing <= same <= seeing | plain
    assert len(run.model.model.language_model.layers) == 3
    assert not any(p.requires_grad for p in run.model.model.vision_tower.parameters())


def test_emergence_measures_what_was_kept(tmp_path):
    for step in (20, 100, 3):
        (tmp_path / "checkpoints" / f"shown-{step:05d}").mkdir(parents=True)
    assert [step for step, _ in emergence.kept(tmp_path, "shown")] == [3, 20, 100]
    with pytest.raises(SystemExit, match="no checkpoint called told-STEP"):
        emergence.kept(tmp_path, "told")
    questions = vl.load_dataset("shapes", split="validation", task="moving direction", n=2)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    table = pd.DataFrame(emergence.measured(model, questions, 3))
    flow = vl.trace_flow(model, questions, routes=emergence.ROUTES, samples="all")
    effect = flow.effect("question -> last", measure=emergence.MEASURE)
    found = table[(table["kind"] == "effect") & (table["name"] == "question -> last")].iloc[0]
    assert (found["value"], found["low"], found["n"]) == (effect.value, effect.low, 2)
    assert table[table["kind"] == "accuracy"]["value"].tolist() == [100.0]
    later = table.assign(step=20)
    axes = emergence.figure(pd.concat([table, later])).axes
    assert [list(line.get_xdata()) for line in axes[0].get_lines() if line.get_label() == "moving direction"] == [
        [3, 20]
    ]
    drawn = [[line.get_label() for line in each.get_lines()][1:] for each in axes]
    assert drawn[1] == [route.replace("->", "→") for route in emergence.ROUTES]
    assert set(drawn[2]) <= set(drawn[1]), "a centre is drawn of what has an effect"


def test_probes_at_checkpoints_are_those_of_probe():
    model = vl.HookedVideoTransformer.from_pretrained("shapes-image")
    questions = vl.load_dataset("shapes", split="validation", task=probes.TASK, n=40)
    rows = pd.DataFrame(probes.measured(model, questions, 7))
    found = vl.probe(model, questions, {"direction": "answer"}, ["video"], progress=False)
    assert list(rows["layer"]) == list(range(-1, model.cfg.n_layers)) and set(rows["step"]) == {7}
    for layer in (-1, 4):
        [row] = rows[rows["layer"] == layer].itertuples()
        assert row.right == found.accuracy("direction", "video", layer).value
        assert row.control == found.control("direction", "video", layer).value


def test_shuffled_clips_keep_their_frames_and_lose_their_order():
    features = torch.arange(6 * 8 * 2, dtype=torch.float16).reshape(6, 8, 2, 1)
    clips = Clips(features, torch.ones(6, 2, 8, 2, dtype=torch.int64), [[]] * 6, [[]] * 6, ["colour"] * 6)
    found = shuffled(clips, seed=3)
    assert torch.equal(found.features.sort(dim=1).values, features), "the same frames of the same clip"
    orders = found.features[:, :, 0, 0] - features[:, :1, 0, 0]
    assert len({tuple(order) for order in orders.tolist()}) == 6, "an order of its own for each"
    assert bool((found.motion == -100).all()) and bool((clips.motion == 1).all())
