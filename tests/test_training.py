"""The training of the bundled models: packing questions changes nothing, and what is saved is what is shipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlavaNextVideoForConditionalGeneration

from training import checkpoint, vocabulary
from training.data import SAMPLED, Packer, as_decoded, make_clips, make_scene, motion_targets
from training.heads import Heads, Weights
from training.language import Stage, forward, train
from training.prompts import PREFIX, multiple_choice
from training.tower import tower_features
from videolens.datasets.shapes_tasks import TASKS, TEMPORAL_TASKS
from videolens.datasets.shapes_world import render


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.build()


@pytest.fixture(scope="module")
def model(tokenizer):
    return checkpoint.new_model(tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def qwen(tokenizer):
    """Two heads share a key head, and queries and keys are normed by weights that are not one any more."""
    model = checkpoint.new_model(tokenizer, seed=0, depth=8, matching=0.9, decoder="qwen3").eval()
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.language_model.layers:
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            norm.weight.data = 1 + 0.3 * torch.randn(norm.weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def clips(model):
    with torch.no_grad():
        return make_clips(list(TASKS), 20, 0, lambda frames: tower_features(model, torch.from_numpy(frames)))


@pytest.mark.parametrize("kind", ["model", "qwen"])
def test_a_packed_question_gets_the_logits_it_gets_alone(kind, request, tokenizer, clips):
    model = request.getfixturevalue(kind)
    packer = Packer(tokenizer, slots=5)
    batch = packer.batch(clips, np.arange(4), np.random.default_rng(0))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        packed, _ = forward(model, batch)
    for row in range(4):
        for branch in range(1, int(batch.branch[row].max()) + 1):
            here = batch.branch[row] == branch
            if not here.any():
                continue
            ids = torch.cat([batch.input_ids[row, : batch.n_prefix], batch.input_ids[row, here]])[None]
            with torch.no_grad():
                embeds = model.get_input_embeddings()(ids)
                video = model.model.multi_modal_projector(batch.features[row : row + 1].flatten(1, 2))
                at = (ids == model.config.video_token_index)[..., None].expand_as(embeds)
                alone = model.lm_head(model.model.language_model(inputs_embeds=embeds.masked_scatter(at, video))[0])[0]
            asked = [
                j for j, (r, p) in enumerate(batch.target_at.tolist()) if r == row and batch.branch[r, p] == branch
            ]
            first = int(here.nonzero()[0])
            for j in asked:
                place = batch.n_prefix + int(batch.target_at[j, 1]) - first
                # bfloat16 in training, float32 here: a wrong mask or position moves logits by several deviations
                assert (packed[j] - alone[place]).abs().max() < 0.12 * alone[place].std()


def test_every_question_fits_a_slot(tokenizer, clips):
    packer = Packer(tokenizer, slots=5)
    rng = np.random.default_rng(0)
    for i in range(len(clips)):
        for branch in packer.branches(clips, i, rng, backwards=False, letters=1.0):
            assert len(branch.text) + len(branch.answer) - 1 <= packer.n_slot


def test_heads_are_asked_where_the_answer_can_be_known(tokenizer, clips):
    packer = Packer(tokenizer, slots=5)
    batch = packer.batch(clips, np.arange(len(clips)), np.random.default_rng(0))
    for row, position in batch.asked_at.tolist():
        assert tokenizer.decode(batch.input_ids[row, position]) == "?"
    true = [p for p, yes in zip(batch.option_at.tolist(), batch.option_true.tolist(), strict=True) if yes]
    letters = [i for i, kind in enumerate(batch.kind) if kind.startswith("mc")]
    assert len(true) == len(letters)
    for (row, position), i in zip(true, letters, strict=True):
        letter = tokenizer.decode(batch.target[i])
        spelt = tokenizer.decode(batch.input_ids[row, position - 8 : position + 1])
        assert spelt[spelt.rindex("(") :].startswith(f"({letter}) ")


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["llama", "qwen3"])
def test_half_of_the_heads_begin_by_looking_at_what_is_like_themselves(tokenizer, decoder):
    model = checkpoint.new_model(tokenizer, seed=0, depth=2, matching=0.9, decoder=decoder)
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        q = attention.q_proj.weight.unflatten(0, (4, 32))
        k = attention.k_proj.weight.unflatten(0, (-1, 32)).repeat_interleave(attention.num_key_value_groups, 0)
        alike = [float(torch.corrcoef(torch.stack([q[i].flatten(), k[i].flatten()]))[0, 1]) for i in range(4)]
        assert alike == pytest.approx([0.9, 0.9, 0, 0], abs=0.06)


def test_heads_read_the_layers_they_are_given(model, tokenizer, clips):
    """With the order turned round, each loss follows the residual of its own layer and no other."""
    batch = Packer(tokenizer, slots=5).batch(clips, np.arange(4), np.random.default_rng(0))
    weights = Weights(motion=0.5, layers={"motion": 9, "answer": 5, "truth": 1})
    heads = Heads(128, len(tokenizer))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        _, seen = forward(model, batch, weights.layers.values())
        before = heads.losses(seen, batch, weights)
        for name, layer in weights.layers.items():
            after = heads.losses(seen | {layer: 2 * seen[layer]}, batch, weights)
            assert [key for key in before if before[key] != after[key]] == [name]
        one = Packer(tokenizer, slots=2, n_frames=1).batch(clips, np.arange(4), np.random.default_rng(0))
        losses = heads.losses(forward(model, one, weights.layers.values())[1], one, weights)
        assert "motion" not in losses and all(loss.isfinite() for loss in losses.values()), "one frame: no motion"


def test_the_tower_is_read_where_the_checkpoint_says(model):
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8))
    from training.tower import pixels

    with torch.no_grad():
        hidden = model.model.vision_tower(pixels(frames), output_hidden_states=True).hidden_states[-2][:, 1:]
        assert torch.equal(tower_features(model, frames), model.model.vision_resampler(hidden))


def test_text_goes_in_and_comes_out_unchanged(tokenizer):
    rng = np.random.default_rng(0)
    for task in TASKS:
        ask = make_scene(task, rng)[1][0]
        text = PREFIX + multiple_choice(ask, ask.options)[0]
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>" + text
        assert len(ids) < 75, "words of the benchmark should be one token each"
    for text in ("Hello, wörld — 你好!", " two  spaces\tand\na tab"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_motion_targets_say_what_things_did():
    rng = np.random.default_rng(0)
    for _ in range(10):
        scene, asks = make_scene("moving direction", rng)
        target = motion_targets(scene, "moving direction")
        kinds = {"left": 2, "right": 3, "up": 4, "down": 5}
        assert (target[0] == -100).all()
        assert (target[1:] == kinds[asks[0].answer]).any(axis=1).all()
        back = motion_targets(scene.reversed(), "moving direction")
        assert (back[1:] == kinds[asks[0].answer_reversed]).any(axis=1).all()


def test_training_frames_look_like_decoded_ones(tmp_path):
    import videolens as vl

    scene, _ = make_scene("object count", np.random.default_rng(0))
    path = vl.Video.from_array(render(scene), fps=8).write(tmp_path / "clip.mp4", fps=8)
    decoded = vl.Video.from_file(path).frames.numpy().astype(float)
    drawn = render(scene, SAMPLED)
    simulated = as_decoded(drawn, np.random.default_rng(0)).astype(float)
    assert np.abs(decoded - simulated).mean() < np.abs(decoded - drawn).mean() + 1.5
    assert np.abs(decoded - simulated).mean() < 4


def test_a_saved_checkpoint_is_an_ordinary_one_and_loads_in_videolens(tmp_path, model, tokenizer):
    import videolens as vl

    checkpoint.save(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size <= 10_000_000
    theirs = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(theirs.lm_head.weight, model.lm_head.weight)
    assert (
        AutoTokenizer.from_pretrained(tmp_path)("a red circle")["input_ids"] == tokenizer("a red circle")["input_ids"]
    )
    ours = vl.HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.template == "shapes"
    question = vl.load_dataset("shapes", split="validation", task=TEMPORAL_TASKS[0], n=1)[0]
    assert ours.prompt(question).text.startswith(PREFIX)


@pytest.mark.parametrize("ways", [{"heads": Weights(motion=0.5)}, {"heads": None, "muon": 1e-3}], ids=["hints", "none"])
def test_training_resumes_where_it_was_and_ends_alike(tmp_path, tokenizer, clips, ways):
    packer = Packer(tokenizer, slots=2)
    stage = Stage("tuned", steps=4, warmup=1, **ways)

    def run(folder, stop_at=None):
        folder.mkdir(exist_ok=True)
        model = checkpoint.new_model(tokenizer, seed=0, depth=9 if stage.heads else 2)
        kept, logged = [], []

        def draw(rng, step):
            if step == stop_at:
                raise KeyboardInterrupt
            return packer.batch(clips, rng.integers(0, len(clips), 3), rng)

        with torch.compiler.set_stance("force_eager"):
            train(model, stage, draw, dict, lambda **k: logged.append(k), folder / "state.pt", kept.append, every=2)
        return model.state_dict(), logged

    whole, logged = run(tmp_path / "whole")
    assert [line["step"] for line in logged] == [2, 4]
    hints = {"motion", "answer", "truth"} if stage.heads else set()
    assert set(logged[0]) == {"stage", "step", "seconds", "loss"} | hints
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at=3)
    resumed, logged = run(tmp_path / "cut")
    assert [line["step"] for line in logged] == [4]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
