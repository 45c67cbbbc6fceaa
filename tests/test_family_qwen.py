"""Qwen2-VL and Qwen2.5-VL: positions along three axes, frames in pairs, and blocks of patches."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.clips import clip
from helpers.families import CASES
from helpers.families.qwen import BLOCK, PAIR, PREPROCESSOR, flat_patches
from safetensors import safe_open
from transformers.video_utils import VideoMetadata

from videolens import Knockout, Question, Video, sweep
from videolens.errors import ModelError
from videolens.model.families import Clock, family_of
from videolens.model.families._mrope import multimodal_positions
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.vision.smart_resize import SmartResize
from videolens.prompt.tokens import TokenMap

both = pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])


@both
@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (4, 5, 2), (7, 5, 2), (9, 2, 3)])
@pytest.mark.parametrize(("before", "after"), [(0, 4), (7, 1), (3, 0), (7, 4)])
def test_positions_are_those_of_transformers(name, grid, before, after) -> None:
    expected, mine = positions(name, grid, before=before, after=after, step=None)
    assert torch.equal(mine, expected)


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (7, 5, 2)])
@pytest.mark.parametrize("step", [0.04, 1 / 3, 0.5, 0.75, 2.0])
def test_positions_along_time_are_those_of_transformers_qwen2_5_vl(grid, step) -> None:
    expected, mine = positions("qwen2_5_vl", grid, before=7, after=4, step=step)
    assert torch.equal(mine, expected)


def positions(
    name: str, grid: tuple[int, int, int], *, before: int, after: int, step: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of transformers and ours [axis pos]; `step`: seconds from one frame to the next."""
    original = CASES[name].plain
    n = grid[0] * grid[1] * grid[2]
    tokens = TokenMap.from_spans(before + n + after, {}, grid=grid, video=range(before, before + n))
    ids = torch.zeros(1, tokens.n_pos, dtype=torch.int64)
    kinds = torch.zeros_like(ids)
    kinds[0, tokens["video"]] = 2
    sizes = torch.tensor([[grid[0], 2 * grid[1], 2 * grid[2]]])
    if name == "qwen2_vl":
        expected, _ = original.model.get_rope_index(ids, kinds, video_grid_thw=sizes)
        return expected[:, 0], multimodal_positions(tokens)
    # in seconds from pair to pair, as the processor of transformers hands them on: plain numbers
    each = None if step is None else [PAIR * step]
    expected, _ = original.model.get_rope_index(ids, kinds, video_grid_thw=sizes, second_per_grid_ts=each)
    per_second = original.config.vision_config.tokens_per_second
    return expected[:, 0], multimodal_positions(tokens, interval=per_second * (1.0 if step is None else PAIR * step))


CLIPS = [(100, 10, 8), (50, 10, 8), (97, 29.97, 6), (240, 23.976, 16), (9, 3, 4)]


@pytest.mark.parametrize(("n_source", "fps", "n"), CLIPS)
@pytest.mark.parametrize("part", [None, (0.5, 2.5)])
def test_the_clock_is_the_processors_to_the_position(n_source: int, fps: float, n: int, part: Any) -> None:
    # ten seconds at ten frames a second: eight frames are 1.25 s apart as processors count, not 1.243 s as they lie
    start, end = part or (None, None)
    pixels = np.zeros((n_source, 8, 8, 3), dtype=np.uint8)
    video = Video.from_array(pixels, fps=fps, n_frames=n, start=start, end=end)
    total = n_source if part is None else min(round(end * fps), n_source - 1) - round(start * fps) + 1
    said = VideoMetadata(total_num_frames=total, fps=fps, frames_indices=video.indices.tolist())
    assert video.sampled_fps == said.sampled_fps
    grid = (n // PAIR, 3, 2)
    tokens = TokenMap.from_spans(40 + 6 * grid[0], {}, grid=grid, video=range(7, 7 + 6 * grid[0]))
    tokens = replace(tokens, merged=PAIR)
    original = CASES["qwen2_5_vl"].plain
    ids = torch.zeros(1, tokens.n_pos, dtype=torch.int64)
    kinds = torch.zeros_like(ids)
    kinds[0, tokens["video"]] = 2
    sizes, each = torch.tensor([[grid[0], 6, 4]]), torch.tensor([PAIR / said.sampled_fps])
    expected, _ = original.model.get_rope_index(ids, kinds, video_grid_thw=sizes, second_per_grid_ts=each)
    clock = Clock.of(video)
    assert torch.equal(family_of("qwen2_5_vl").positions(original.config, tokens, clock), expected[:, 0])


def test_positions_without_a_video_and_with_text_inside_it() -> None:
    text = TokenMap.from_spans(5, {}, grid=(0, 0, 0), video=())
    assert multimodal_positions(text).tolist() == [[0, 1, 2, 3, 4]] * 3
    split = TokenMap.from_spans(6, {}, grid=(2, 1, 1), video=[1, 3])
    with pytest.raises(ModelError, match="1 other tokens lie between"):
        multimodal_positions(split)


@both
@torch.no_grad()
def test_text_alone_is_the_language_model(name) -> None:
    ids = torch.randint(3, 200, (2, 9))
    expected = CASES[name].plain(input_ids=ids).logits
    assert (CASES[name].ours(ids) - expected).abs().max() <= 1e-4 * expected.std()


@both
def test_the_map_counts_pairs_of_frames(name) -> None:
    ours = CASES[name].ours
    prompt = CASES[name].prompts(ours, (5, 2 * BLOCK, 3 * BLOCK), step=0.5)[0]
    tokens = prompt.tokens
    assert tokens.grid == (3, 2, 3) and tokens.merged == PAIR
    assert prompt.video_features.shape == (1, 3, 4 * 2 * 3, ours.cfg.d_vision)
    assert tokens.seconds[tokens["video"]].unique().tolist() == [3.0, 4.0, 5.0]
    assert tokens["frame 2"].tolist() == list(range(5 + 12, 5 + 18))
    # the repeated last frame: the same pixels twice
    even = torch.cat([prompt.pixel_values, prompt.pixel_values[:, -1:]], dim=1)
    assert torch.equal(ours.prompt_from_ids(prompt.input_ids, even).residual, prompt.residual)


@both
def test_without_attention_a_patch_is_felt_in_its_own_token_only(name) -> None:
    original = CASES[name].original()
    with torch.no_grad():
        for block in original.model.visual.blocks:
            block.attn.proj.weight.zero_()
    ours = HookedVideoTransformer.from_hugging_face(original)
    prompt = CASES[name].prompts(ours, (4, 3 * BLOCK, 5 * BLOCK))[0]
    places = [(0, 0, 0), (1, 1, 2), (2, 0, 1), (3, 1, 0), (1, 1, 4), (2, 2, 2), (3, 1, 3)]
    for frame, row, column in places:
        other = prompt.pixel_values.clone()
        other[:, frame, :, row * BLOCK + 5, column * BLOCK + 2] += 3  # in the lower left patch of the block
        changed = ours.prompt_from_ids(prompt.input_ids, other)
        moved = (changed.residual != prompt.residual).any(-1)[0].nonzero().flatten().tolist()
        assert moved == prompt.tokens[f"f{frame // PAIR} r{row} c{column}"].tolist()
        # and in the tower's features, whose patches lie row by row
        mine = (changed.video_features != prompt.video_features).any(-1).nonzero().tolist()
        assert mine == [[0, frame // PAIR, (2 * row + 1) * 10 + 2 * column]]


@both
def test_routes_are_cut_between_pairs(name) -> None:
    ours = CASES[name].ours
    prompt = CASES[name].prompts(ours, (6, BLOCK, 2 * BLOCK))[0]
    cut = Knockout.route("cross-frame", layers=[0, 1, 2])
    last = prompt.tokens["frame 2"]

    def at_the_end(of: Any) -> tuple[torch.Tensor, torch.Tensor]:
        _, cache = ours.run_with_cache(of, names_filter="blocks.2.hook_resid_post")
        with ours.hooks(fwd_hooks=cut.hooks(of)):
            _, blocked = ours.run_with_cache(of, names_filter="blocks.2.hook_resid_post")
        return cache["resid_post", 2][0, last], blocked["resid_post", 2][0, last]

    changed = prompt.pixel_values.clone()
    changed[:, 1] += 1  # of the first pair
    free, blocked = at_the_end(prompt)
    free_other, blocked_other = at_the_end(ours.prompt_from_ids(prompt.input_ids, changed))
    assert (free - free_other).abs().max() > 0.1 * free.std()
    assert torch.equal(blocked, blocked_other)
    # the tokens of a pair still see each other
    assert (free - blocked).abs().max() > 0.01 * free.std()


@both
def test_the_engine_cuts_the_last_token_off_from_itself(name) -> None:
    ours = CASES[name].ours
    prompt = CASES[name].prompts(ours, (7, BLOCK, 2 * BLOCK))[0]
    cuts = [Knockout.route("last -> last", layers=layers) for layers in ([0], [1], [0, 1, 2])]
    cuts += [Knockout(f"frame {frame}", "last", layers=[0, 1, 2]) for frame in range(4)]
    exact, full = (sweep(ours, prompt, cuts, engine=engine) for engine in ("exact", "full"))
    assert (exact.logits - full.logits).abs().max() <= 1e-4 * full.base.std()
    assert ((full.logits - full.base).abs().amax(-1) > 0.01 * full.base.std()).all()


@both
@pytest.mark.parametrize(("frames", "height", "width"), [(4, 90, 120), (7, 40, 200), (1, 64, 64)])
def test_frames_of_a_clip_are_blocks_within_a_budget(name, frames, height, width) -> None:
    video = Video.from_array(torch.cat([clip(height, width)] * 4)[:frames], fps=2)
    question = Question(video, "What moves?", options=["A ball", "A cube"], answer="A cube")
    prompt = CASES[name].ours.prompt(question, template="vicuna")
    assert torch.equal(prompt.pixel_values[0], SmartResize.from_dict(PREPROCESSOR).prepare(video.frames))
    patches, grids = flat_patches(prompt.pixel_values)
    assert prompt.tokens.grid == (grids[0] // torch.tensor([1, 2, 2])).unbind()
    assert len(patches) == int(grids.prod())


@both
def test_the_file_on_disk_is_the_published_layout(name, tmp_path) -> None:
    CASES[name].write(tmp_path, CASES[name].plain)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"visual", "model", "lm_head"}  # noqa: SIM118
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == name
