"""The vision tower runs once per clip, and never stands for another tower or another clip."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.tokenizer import tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st

import videolens as vl
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.vision.pixels import PixelSettings
from videolens.model.vision.tower_memory import TowerMemory, _hash, checksum
from videolens.question import Question
from videolens.video.video import Video

IDS, _, PIXELS = tiny_inputs(frames=3)
OTHER = tiny_inputs(frames=3, seed=1)[2]


@pytest.fixture
def model() -> HookedVideoTransformer:
    settings = PixelSettings(size=16, crop=(16, 16))
    return HookedVideoTransformer.from_hugging_face(
        tiny_llava_next_video(), tokenizer=tiny_tokenizer(), pixels=settings
    )


@pytest.fixture
def calls(model: HookedVideoTransformer) -> list[tuple[int, ...]]:
    """The shape of the pixels of every run of the tower."""
    seen: list[tuple[int, ...]] = []
    tower = model.frontend.parts["tower"]
    tower.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    return seen


def features(model: HookedVideoTransformer, pixels: torch.Tensor = PIXELS) -> torch.Tensor:
    found = model.prompt_from_ids(IDS, pixels).video_features
    assert found is not None
    return found


def tower_weight(model: HookedVideoTransformer) -> torch.nn.Parameter:
    """Some weight that the features depend on."""
    return next(p for name, p in model.frontend.parts["tower"].named_parameters() if name.endswith("q_proj.weight"))


# --- once per clip ----------------------------------------------------------------------------------------------------


def test_prompts_of_the_same_pixels_share_one_run(model, calls) -> None:
    first, second = features(model), features(model)
    assert calls == [(3, 3, 16, 16)]
    assert torch.equal(first, second) and torch.equal(first, model.frontend.encode(PIXELS))
    assert len(model.frontend.memory) == 1 and model.frontend.memory.n_bytes == first.nbytes
    features(model, OTHER)
    features(model)
    assert len(calls) == 3 and len(model.frontend.memory) == 2  # one of the three was `encode`, which always computes


def test_questions_and_knockouts_share_one_run(model, calls) -> None:
    video = Video.from_array(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    texts = ("Which way the ball moves ?", "Where does the square ?")
    questions = [
        Question(video=video, stem=stem, options=["left", "right"], answer="left", reversed_answer="right", id=stem)
        for stem in texts
    ]
    vl.trace_flow(model, questions, samples="all", routes=["video -> last", "cross-frame"], progress=False)
    assert len(calls) == 1
    vl.trace_flow(model, [questions[0].reversed()], samples="all", progress=False)
    assert len(calls) == 2


def test_a_prompt_without_features_asks_the_memory(model, calls) -> None:
    prompt = model.prompt_from_ids(IDS, PIXELS)
    bare = replace(prompt, video_features=None)
    hooks = [("frontend.hook_video_features", lambda value, hook: value * 1.0)]
    again = model.run_with_hooks(bare, fwd_hooks=hooks)
    assert len(calls) == 1
    torch.testing.assert_close(again, model(prompt))


def test_rows_of_a_batch(model, calls) -> None:
    ids, _, pixels = tiny_inputs(frames=3, rows=2)
    batch = features(model, pixels[:1]).clone(), model.prompt_from_ids(ids, pixels).video_features
    assert len(calls) == 2 and torch.equal(batch[0][0], batch[1][0])  # the first of the two was known
    shared = model.prompt_from_ids(ids, pixels[1:]).video_features
    assert len(calls) == 2 and shared.shape[0] == 2
    assert torch.equal(shared[0], batch[1][1]) and torch.equal(shared[1], batch[1][1])


# --- nothing stale ----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[HookedVideoTransformer], object]] = {
    "in place": lambda model: tower_weight(model).mul_(1.5),
    "one number": lambda model: tower_weight(model)[3].__setitem__(5, 2.0),
    "through .data": lambda model: tower_weight(model).data.mul_(-1.0),
    "through numpy": lambda model: np.multiply(
        tower_weight(model).detach().numpy(), 2, out=tower_weight(model).numpy()
    ),
    "neurons shuffled": lambda model: tower_weight(model).data.copy_(tower_weight(model).data.flip(0)),
    "inputs shuffled": lambda model: tower_weight(model).data.copy_(tower_weight(model).data.flip(1)),
    "new data": lambda model: setattr(tower_weight(model), "data", tower_weight(model).data + 0.5),
    "loaded": lambda model: model.frontend.parts["tower"].load_state_dict(
        {name: value * 1.1 for name, value in model.frontend.parts["tower"].state_dict().items()}
    ),
    "rounded there and back": lambda model: model.to(torch.bfloat16).to(torch.float32),
    "the tower alone rounded": lambda model: model.frontend.parts["tower"].to(torch.bfloat16).to(torch.float32),
    "another tower": lambda model: model.frontend.parts.__setitem__(
        "tower", HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(seed=1)).frontend.parts["tower"]
    ),
    "another layer": lambda model: setattr(model.frontend.config, "vision_feature_layer", -1),
    "another forward": lambda model: setattr(
        model.frontend.parts["tower"].encoder.layers[0].mlp, "forward", lambda hidden: hidden * 0
    ),
    "a hook": lambda model: (
        model.frontend.parts["tower"].encoder.layers[0].mlp.register_forward_hook(lambda module, args, out: out * 0)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@torch.no_grad()
def test_a_tower_that_was_changed_runs_again(model, name: str) -> None:
    before = features(model)
    CHANGES[name](model)
    after = features(model)
    assert torch.equal(after, model.frontend.encode(PIXELS)), name
    assert not torch.equal(after, before), name
    assert len(model.frontend.memory) <= 1  # what the tower gave before is not kept


def test_a_converted_model_runs_its_tower_again(model, calls) -> None:
    features(model)
    model.to(torch.bfloat16)
    assert len(model.frontend.memory) == 0
    half = features(model)
    assert len(calls) == 2 and half.dtype == torch.bfloat16
    assert torch.equal(half, features(model)) and len(calls) == 2


def test_hooks_that_change_something_are_asked_every_time(model) -> None:
    """A hook function may depend on something that changes: what it does today is not what it does tomorrow."""
    scale = [0.0]
    seen: list[int] = []
    mlp = model.frontend.parts["tower"].encoder.layers[0].mlp
    plain = features(model)
    with mlp.register_forward_hook(lambda module, args, out: out * scale[0]):
        off = features(model)
        scale[0] = 1.0
        assert torch.equal(features(model), plain) and not torch.equal(off, plain)
    with mlp.register_forward_hook(lambda module, args, out: (out.mul_(scale[0]), None)[1]):  # writes in place
        features(model)
        scale[0] = 0.0
        assert torch.equal(features(model), off)
    with mlp.register_forward_pre_hook(lambda module, args: (args[0] * scale[0],)):
        features(model)
        scale[0] = 1.0
        assert torch.equal(features(model), plain)
    once = mlp.register_forward_hook(lambda module, args, out: (seen.append(1), once.remove())[0])
    assert torch.equal(features(model), plain) and torch.equal(features(model), plain) and seen == [1]
    assert not mlp._forward_hooks and not mlp._forward_pre_hooks


def test_a_tower_in_training_is_not_remembered(model, calls) -> None:
    model.frontend.parts["tower"].train()
    features(model)
    features(model)
    assert len(calls) == 2 and len(model.frontend.memory) == 0


def test_arithmetic_is_part_of_what_is_remembered(model, calls) -> None:
    features(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features(model)
    assert len(calls) == 2


@pytest.mark.parametrize("change", ["in place", "data", "numpy"])
def test_what_becomes_of_a_prompt_stays_with_it(model, change: str) -> None:
    fresh = model.frontend.encode(PIXELS)
    for _ in range(2):  # just computed, and then remembered
        prompt = model.prompt_from_ids(IDS, PIXELS)
        assert torch.equal(prompt.video_features, fresh)
        if change == "in place":
            prompt.video_features.zero_()
        elif change == "data":
            prompt.video_features.data.zero_()
        else:
            prompt.video_features.numpy()[:] = 0
    assert torch.equal(features(model), fresh)


def test_gradients_and_inference_mode(model) -> None:
    with torch.inference_mode():
        features(model)
    grads = []
    for _ in range(2):
        prompt = model.prompt_from_ids(IDS, PIXELS)
        assert not prompt.video_features.requires_grad
        point = "frontend.hook_video_features"
        with model.hooks(bwd_hooks=[(point, lambda grad, hook: grads.append(grad.clone()))]):
            model(prompt)[0, -1, 10].backward()
    assert len(grads) == 2 and torch.equal(*grads) and bool(grads[0].abs().max() > 0)
    assert not features(model).requires_grad


def test_clips_with_equal_sums_are_told_apart(model, calls) -> None:
    """A square that moves, and the same clip backwards: every frame has the same numbers, every pixel the same sum."""
    clip = torch.zeros(1, 4, 3, 16, 16)
    for frame in range(4):
        clip[0, frame, :, 4:8, 4 * frame : 4 * frame + 4] = 1.0
    back = clip.flip(1)
    assert checksum([clip]) is not None and _hash(clip) != _hash(back)
    assert not torch.equal(features(model, clip), features(model, back)) and len(calls) == 2


@given(shape=st.sampled_from([(7,), (64, 48), (3, 5, 2, 2), ()]), seed=st.integers(0, 999), data=st.data())
def test_a_change_of_one_number_or_of_the_order_shows(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64]))
    values = (100 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
    changed = values.clone()
    flat = changed.view(-1)
    place = data.draw(st.integers(0, len(flat) - 1))
    flat[place] = torch.nextafter(flat[place], torch.tensor(torch.inf)) if dtype == torch.float32 else flat[place] + 1
    assert torch.equal(changed, values) == (checksum([values]) == checksum([changed]))
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed + 1))
    mixed = values.view(-1)[order].view(shape)
    assert torch.equal(mixed, values) == (checksum([values]) == checksum([mixed]))


def test_weights_that_are_parts_of_others_are_read_where_they_lie() -> None:
    fused = torch.randn(3, 4096 + 5).to(torch.bfloat16)
    for part in (fused[1], fused[1, 1:], fused[1, 1:4097], fused[:, 3:], fused[:, :0], fused.t()[7:]):
        assert checksum([part]) == checksum([part.clone(memory_format=torch.contiguous_format)])
    assert len({checksum([fused[0]]), checksum([fused[1]]), checksum([fused[1, 1:]])}) == 3


# --- bounds and copies ------------------------------------------------------------------------------------------------


def test_only_so_many_bytes_are_kept(model, calls) -> None:
    one = features(model).nbytes
    model.frontend.memory = TowerMemory(room=2 * one)
    clips = [tiny_inputs(frames=3, seed=seed)[2] for seed in range(3)]
    for clip in (*clips, clips[2], clips[1], clips[0]):
        features(model, clip)
        assert model.frontend.memory.n_bytes <= 2 * one
    assert len(calls) == 1 + 3 + 1  # only the one used longest ago had to be looked at again
    model.frontend.memory = TowerMemory(room=one - 1)
    features(model)
    features(model)
    assert len(model.frontend.memory) == 1 and len(calls) == 6
    model.frontend.memory.clear()
    assert model.frontend.memory.n_bytes == 0


def test_a_copy_of_a_model_begins_with_nothing(model) -> None:
    features(model)
    twin = copy.deepcopy(model.frontend.memory)
    assert len(twin) == 0 == len(pickle.loads(pickle.dumps(model.frontend.memory)))
    assert len(model.frontend.memory) == 1
