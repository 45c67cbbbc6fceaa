"""Qwen2.5-VL is converted as transformers runs it: windows in the tower, seconds on the time axis."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.parity import STORAGES, prove, rounded, write_module, write_state
from helpers.qwen import (
    BLOCK,
    PAIR,
    SHARED,
    TEXT,
    VIDEO,
    VISION_2_5,
    flat_patches,
    reference,
    through_disk,
    tiny_qwen2_5_vl,
    two_prompts,
)
from test_model_pixels import clip
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

from videolens import Question, TokenMap, Video
from videolens.model.families import Clock, family_of
from videolens.model.families._mrope import multimodal_positions
from videolens.model.transformer import HookedVideoTransformer


@pytest.fixture(scope="module")
def original():
    return tiny_qwen2_5_vl()


@pytest.fixture(scope="module")
def ours(original, tmp_path_factory) -> HookedVideoTransformer:
    return through_disk(original, tmp_path_factory.mktemp("qwen2_5_vl"))


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(original, storage, tmp_path) -> None:
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    # three blocks wide, two high: windows of unequal size; an odd number of frames
    prompts = two_prompts(ours, frames=5, height=2 * BLOCK, width=3 * BLOCK)
    prove(ours, reference(rounded(original, storage)), prompts)


@pytest.mark.parametrize(
    ("frames", "height", "width", "step"),
    [(4, 5, 3, 0.5), (7, 1, 4, 0.37), (3, 3, 3, 1.0), (12, 2, 1, 2.5), (1, 2, 2, 1.0)],
)
def test_parity_in_other_shapes_with_known_times(original, ours, frames, height, width, step) -> None:
    prompts = two_prompts(ours, frames=frames, height=height * BLOCK, width=width * BLOCK, step=step)
    prove(ours, reference(original, seconds_each=PAIR * step), prompts)


def test_times_matter(ours) -> None:
    slow, fast = (two_prompts(ours, frames=6, height=BLOCK, width=BLOCK, step=step)[0] for step in (1.0, 4.0))
    other = ours.prompt_from_ids(slow.input_ids, slow.pixel_values, seconds=[4.0 * i for i in range(6)])
    assert torch.equal(slow.residual, other.residual) and torch.equal(other.rotary[0], fast.rotary[0])
    assert not torch.equal(slow.rotary[0], other.rotary[0])
    # nine words after the video, which go on from its larger side
    assert slow.next_positions == other.next_positions == (5 + 1 + 9,)


@pytest.mark.parametrize("keys", [1, 4], ids=["one key head", "a key head per head"])
def test_parity_with_tied_embeddings(keys, tmp_path) -> None:
    original = tiny_qwen2_5_vl(
        text={"tie_word_embeddings": True, "num_key_value_heads": keys}, tie_word_embeddings=True
    )
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.unembed.weight is ours.frontend.embed.weight
    prove(ours, reference(original), two_prompts(ours, frames=3, height=3 * BLOCK, width=BLOCK))


def test_the_layout_that_the_hub_has(original, tmp_path) -> None:
    # config.json without a part for the text, keys as of transformers 4.4x
    state = {
        key.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value
        for key, value in original.state_dict().items()
    }
    assert {key.split(".")[0] for key in state} == {"visual", "model", "lm_head"}
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": False,
        "vision_config": {"model_type": "qwen2_5_vl", **VISION_2_5},
        **SHARED,
        **TEXT,
    }
    write_state(tmp_path, state, config)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, reference(original), two_prompts(ours, frames=4, height=BLOCK, width=2 * BLOCK))


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (7, 5, 2)])
@pytest.mark.parametrize("step", [None, 0.04, 1 / 3, 0.5, 0.75, 2.0])
def test_positions_are_those_of_transformers(original, grid, step) -> None:
    n = grid[0] * grid[1] * grid[2]
    tokens = TokenMap.from_spans(7 + n + 4, {}, grid=grid, video=range(7, 7 + n))
    ids = torch.zeros(1, tokens.n_pos, dtype=torch.int64)
    kinds = torch.zeros_like(ids)
    kinds[0, tokens["video"]] = 2
    sizes = torch.tensor([[grid[0], 2 * grid[1], 2 * grid[2]]])
    # in seconds from pair to pair, as the processor of transformers hands them on: plain numbers
    each = None if step is None else [PAIR * step]
    expected, _ = original.model.get_rope_index(ids, kinds, video_grid_thw=sizes, second_per_grid_ts=each)
    per_second = original.config.vision_config.tokens_per_second
    mine = multimodal_positions(tokens, interval=per_second * (1.0 if step is None else PAIR * step))
    assert torch.equal(mine, expected[:, 0])


def test_seconds_come_from_the_clock(original) -> None:
    family = family_of("qwen2_5_vl")
    seconds = torch.arange(5, dtype=torch.float64) * 0.75 + 10
    grid = family.grid(original.config, 5, BLOCK, BLOCK)
    layout = family.layout(original.config, grid, Clock(seconds))
    assert layout.seconds.tolist() == [10.0, 11.5, 13.0] and layout.merged == PAIR
    tokens = TokenMap.from_spans(3, {}, grid=grid, video=range(3), seconds=layout.seconds)
    for clock, interval in [(Clock(seconds), 3), (Clock(seconds * torch.nan), 2)]:
        along = family.positions(original.config, replace(tokens, merged=PAIR), clock)
        assert along[0].tolist() == [0, interval, 2 * interval]


def test_a_frame_is_felt_in_its_own_pair_only(ours) -> None:
    prompt = two_prompts(ours, frames=6, height=3 * BLOCK, width=3 * BLOCK)[0]
    for frame in range(6):
        other = prompt.pixel_values.clone()
        other[:, frame, :, :4, :4] += 1
        moved = (ours.prompt_from_ids(prompt.input_ids, other).residual != prompt.residual).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == prompt.tokens[f"frame {frame // PAIR}"].tolist()


def test_without_attention_a_patch_is_felt_in_its_own_token_only() -> None:
    original = tiny_qwen2_5_vl()
    with torch.no_grad():
        for block in original.model.visual.blocks:
            block.attn.proj.weight.zero_()
    ours = HookedVideoTransformer.from_hugging_face(original)
    prompt = two_prompts(ours, frames=4, height=3 * BLOCK, width=5 * BLOCK)[0]
    for frame, row, column in [(0, 0, 0), (1, 1, 4), (2, 2, 2), (3, 1, 3)]:
        other = prompt.pixel_values.clone()
        other[:, frame, :, row * BLOCK + 5, column * BLOCK + 2] += 3  # in the lower left patch of the block
        changed = ours.prompt_from_ids(prompt.input_ids, other)
        moved = (changed.residual != prompt.residual).any(-1)[0].nonzero().flatten().tolist()
        assert moved == prompt.tokens[f"f{frame // PAIR} r{row} c{column}"].tolist()
        mine = (changed.video_features != prompt.video_features).any(-1).nonzero().tolist()
        assert mine == [[0, frame // PAIR, (2 * row + 1) * 10 + 2 * column]]


@pytest.mark.parametrize(("frames", "shape"), [(4, (90, 120)), (7, (40, 200))])
def test_a_question_about_a_clip(original, ours, frames, shape) -> None:
    film = torch.cat([clip(*shape)] * 4)[:frames]
    question = Question(Video.from_array(film, fps=2), "What moves?", options=["A ball", "A cube"], answer="A cube")
    prompt = ours.prompt(question, template="vicuna")
    _, grids = flat_patches(prompt.pixel_values)
    # transformers' own expansion; its video processor itself needs torchvision
    processor = object.__new__(Qwen2_5_VLProcessor)
    processor.video_token, processor.video_processor = "<|video_pad|>", SimpleNamespace(merge_size=2)
    expanded = processor.replace_video_token({"video_grid_thw": grids}, 0)
    assert len(prompt.tokens["video"]) == expanded.count("<|video_pad|>") == int((prompt.input_ids == VIDEO).sum())
    theirs = reference(original, seconds_each=PAIR / 2).logits(prompt.input_ids, prompt.pixel_values)
    with torch.no_grad():
        assert (ours(prompt) - theirs).abs().max() <= 1e-4 * theirs.std()
