"""Qwen2-VL is converted as transformers runs it: frames in pairs, any shape, positions along three axes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.parity import STORAGES, prove, rounded, write_module, write_state
from helpers.qwen import (
    BLOCK,
    PAIR,
    PREPROCESSOR,
    SHARED,
    TEXT,
    VIDEO,
    VISION_2,
    flat_patches,
    reference,
    through_disk,
    tiny_qwen2_vl,
    two_prompts,
)
from test_model_pixels import clip
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from videolens import Knockout, Question, Video, sweep
from videolens.errors import ModelError
from videolens.model.families._mrope import multimodal_positions
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.vision.smart_resize import SmartResize
from videolens.prompt.tokens import TokenMap


@pytest.fixture(scope="module")
def original():
    return tiny_qwen2_vl()


@pytest.fixture(scope="module")
def ours(original, tmp_path_factory) -> HookedVideoTransformer:
    return through_disk(original, tmp_path_factory.mktemp("qwen2_vl"))


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(original, storage, tmp_path) -> None:
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    # frames wider than high, an odd number of them
    prove(ours, reference(rounded(original, storage)), two_prompts(ours, frames=5, height=2 * BLOCK, width=3 * BLOCK))


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(11, 1, 2), (1, 3, 1), (2, 1, 1)], ids=["longer than wide", "one frame", "a token"]
)
def test_parity_in_other_shapes(original, ours, frames, height, width) -> None:
    prove(ours, reference(original), two_prompts(ours, frames=frames, height=height * BLOCK, width=width * BLOCK))


@pytest.mark.parametrize("keys", [1, 4], ids=["one key head", "a key head per head"])
def test_parity_with_tied_embeddings(keys, tmp_path) -> None:
    original = tiny_qwen2_vl(text={"tie_word_embeddings": True, "num_key_value_heads": keys}, tie_word_embeddings=True)
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
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "tie_word_embeddings": False,
        "vision_config": {"model_type": "qwen2_vl", **VISION_2},
        **SHARED,
        **TEXT,
    }
    write_state(tmp_path, state, config)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, reference(original), two_prompts(ours, frames=4, height=BLOCK, width=2 * BLOCK))


def map_of(grid: tuple[int, int, int], *, before: int, after: int) -> TokenMap:
    n = grid[0] * grid[1] * grid[2]
    return TokenMap.from_spans(before + n + after, {}, grid=grid, video=range(before, before + n))


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (4, 5, 2), (9, 2, 3)])
@pytest.mark.parametrize(("before", "after"), [(0, 4), (7, 1), (3, 0)])
def test_positions_are_those_of_transformers(original, grid, before, after) -> None:
    tokens = map_of(grid, before=before, after=after)
    ids = torch.zeros(1, tokens.n_pos, dtype=torch.int64)
    kinds = torch.zeros_like(ids)
    kinds[0, tokens["video"]] = 2
    sizes = torch.tensor([[grid[0], 2 * grid[1], 2 * grid[2]]])
    expected, _ = original.model.get_rope_index(ids, kinds, video_grid_thw=sizes)
    assert torch.equal(multimodal_positions(tokens), expected[:, 0])


def test_positions_without_a_video_and_with_text_inside_it() -> None:
    text = TokenMap.from_spans(5, {}, grid=(0, 0, 0), video=())
    assert multimodal_positions(text).tolist() == [[0, 1, 2, 3, 4]] * 3
    split = TokenMap.from_spans(6, {}, grid=(2, 1, 1), video=[1, 3])
    with pytest.raises(ModelError, match="1 other tokens lie between"):
        multimodal_positions(split)


def test_text_alone_is_the_language_model(original, ours) -> None:
    ids = torch.randint(3, 200, (2, 9))
    with torch.no_grad():
        expected = original(input_ids=ids).logits
        assert (ours(ids) - expected).abs().max() <= 1e-4 * expected.std()


def test_the_map_counts_pairs_of_frames(ours) -> None:
    prompt = two_prompts(ours, frames=5, height=2 * BLOCK, width=3 * BLOCK, step=0.5)[0]
    tokens = prompt.tokens
    assert tokens.grid == (3, 2, 3) and tokens.merged == PAIR
    assert prompt.video_features.shape == (1, 3, 4 * 2 * 3, ours.cfg.d_vision)
    assert tokens.seconds[tokens["video"]].unique().tolist() == [3.0, 4.0, 5.0]
    assert tokens["frame 2"].tolist() == list(range(5 + 12, 5 + 18))
    # the repeated last frame: the same pixels twice
    even = torch.cat([prompt.pixel_values, prompt.pixel_values[:, -1:]], dim=1)
    assert torch.equal(ours.prompt_from_ids(prompt.input_ids, even).residual, prompt.residual)


def test_a_frame_is_felt_in_its_own_pair_only(ours) -> None:
    prompt = two_prompts(ours, frames=6, height=2 * BLOCK, width=2 * BLOCK)[0]
    for frame in range(6):
        other = prompt.pixel_values.clone()
        other[:, frame, :, :4, :4] += 1
        moved = (ours.prompt_from_ids(prompt.input_ids, other).residual != prompt.residual).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == prompt.tokens[f"frame {frame // PAIR}"].tolist()


def test_without_attention_a_patch_is_felt_in_its_own_token_only(tmp_path) -> None:
    original = tiny_qwen2_vl()
    with torch.no_grad():
        for block in original.model.visual.blocks:
            block.attn.proj.weight.zero_()
    ours = HookedVideoTransformer.from_hugging_face(original)
    prompt = two_prompts(ours, frames=4, height=2 * BLOCK, width=3 * BLOCK)[0]
    for frame, row, column in [(0, 0, 0), (1, 1, 2), (2, 0, 1), (3, 1, 0)]:
        other = prompt.pixel_values.clone()
        other[:, frame, :, row * BLOCK + 5, column * BLOCK + 2] += 3  # in the lower left patch of the block
        moved = (ours.prompt_from_ids(prompt.input_ids, other).residual != prompt.residual).any(-1)[0]
        cell = prompt.tokens[f"f{frame // PAIR} r{row} c{column}"]
        assert moved.nonzero().flatten().tolist() == cell.tolist()
        # and in the tower's features, whose patches lie row by row
        mine = ours.prompt_from_ids(prompt.input_ids, other).video_features != prompt.video_features
        assert mine.any(-1).nonzero().tolist() == [[0, frame // PAIR, (2 * row + 1) * 6 + 2 * column]]


def test_routes_are_cut_between_pairs(ours) -> None:
    prompt = two_prompts(ours, frames=6, height=BLOCK, width=2 * BLOCK)[0]
    cut = Knockout.route("cross-frame", layers=[0, 1, 2])
    last = prompt.tokens["frame 2"]

    def at_the_end(of, hooks):
        _, cache = ours.run_with_cache(of, names_filter="blocks.2.hook_resid_post")
        with ours.hooks(fwd_hooks=hooks):
            _, blocked = ours.run_with_cache(of, names_filter="blocks.2.hook_resid_post")
        return cache["resid_post", 2][0, last], blocked["resid_post", 2][0, last]

    changed = prompt.pixel_values.clone()
    changed[:, 1] += 1  # of the first pair
    other = ours.prompt_from_ids(prompt.input_ids, changed)
    free, blocked = at_the_end(prompt, cut.hooks(prompt))
    free_other, blocked_other = at_the_end(other, cut.hooks(other))
    assert (free - free_other).abs().max() > 0.1 * free.std()
    assert torch.equal(blocked, blocked_other)
    # the tokens of a pair still see each other
    assert (free - blocked).abs().max() > 0.01 * free.std()


@pytest.mark.parametrize("route", ["cross-frame", "video -> last", "last -> last"])
def test_the_engine_gives_what_plain_forwards_give(ours, route) -> None:
    prompt = two_prompts(ours, frames=7, height=BLOCK, width=2 * BLOCK)[0]
    cuts = [Knockout.route(route, layers=layers) for layers in ([0], [1], [0, 1, 2])]
    cuts += [Knockout(f"frame {frame}", "last", layers=[0, 1, 2]) for frame in range(4)]
    exact, full = (sweep(ours, prompt, cuts, engine=engine) for engine in ("exact", "full"))
    assert (exact.logits - full.logits).abs().max() <= 1e-4 * full.base.std()
    assert ((full.logits - full.base).abs().amax(-1) > 0.01 * full.base.std()).all()


def processor() -> Qwen2VLProcessor:
    """What transformers expands placeholders with; its video processor itself needs torchvision."""
    made = object.__new__(Qwen2VLProcessor)
    made.video_token, made.video_processor = "<|video_pad|>", SimpleNamespace(merge_size=2)
    return made


@pytest.mark.parametrize(("frames", "shape"), [(4, (90, 120)), (7, (40, 200)), (1, (64, 64))])
def test_a_question_about_a_clip(ours, frames, shape) -> None:
    film = np.concatenate([clip(*shape).numpy()] * 4)[:frames]
    video = Video.from_array(film, fps=2)
    question = Question(video, "What moves?", options=["A ball", "A cube"], answer="A cube")
    prompt = ours.prompt(question, template="vicuna")
    pixels = SmartResize.from_dict(PREPROCESSOR).prepare(video.frames)
    assert torch.equal(prompt.pixel_values[0], pixels)
    patches, grids = flat_patches(prompt.pixel_values)
    expanded = processor().replace_video_token({"video_grid_thw": grids}, 0)
    assert len(prompt.tokens["video"]) == expanded.count("<|video_pad|>") == int((prompt.input_ids == VIDEO).sum())
    assert prompt.tokens.grid == (grids[0] // torch.tensor([1, 2, 2])).unbind()
    assert len(patches) == int(grids.prod())


def test_frames_that_do_not_fit_are_refused(ours) -> None:
    ids = torch.tensor([[1, VIDEO, 2]])
    with pytest.raises(ModelError, match=r"blocks of 8 × 8"):
        ours.prompt_from_ids(ids, torch.randn(1, 2, 3, 2 * BLOCK, 2 * BLOCK + 4))


def test_the_file_on_disk_is_the_published_layout(original, tmp_path) -> None:
    from safetensors import safe_open

    write_module(tmp_path, original)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"visual", "model", "lm_head"}  # noqa: SIM118
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_vl"
