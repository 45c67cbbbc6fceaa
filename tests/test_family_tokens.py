"""Token maps of every family: what a position is called is where its pixels are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from helpers.families import CASES, each_family
from hypothesis import given, settings
from hypothesis import strategies as st

from videolens import Prompt, Question, Video
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.selections import OF_FRAMES, ROLES


@cache
def model_of(name: str) -> HookedVideoTransformer:
    """With room for tokens of one byte: positions here are not attended to."""
    model = CASES[name].load()
    model.cfg.n_ctx = max(model.cfg.n_ctx, 4096)
    return model


def ask(name: str, *, frames: int, height: int = 40, width: int = 56, options: int = 3, fps: float = 2.0) -> Prompt:
    shown = torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=torch.Generator())
    words = ["left", "right", "up", "down"][:options]
    question = Question(Video.from_array(shown.numpy(), fps=fps), "Which way does the ball go ?", words, "left")
    return model_of(name).prompt(question, "vicuna")


@each_family
def test_every_position_has_one_role_and_spans_tile_the_prompt(name) -> None:
    @settings(max_examples=5)
    @given(st.integers(1, 6), st.integers(24, 90), st.integers(24, 90), st.sampled_from([2, 4]))
    def check(frames: int, height: int, width: int, options: int) -> None:
        frames *= CASES[name].step
        prompt = ask(name, frames=frames, height=height, width=width, options=options, fps=1.5)
        tokens = prompt.tokens
        every = torch.arange(prompt.shape[1])
        for parts in ([tokens[role] for role in ROLES], [at for _, at in tokens.segments()]):
            assert torch.equal(torch.cat(parts).sort().values, every)

        # the video fills its grid in order, every cell once
        n, rows, columns = tokens.grid
        assert n == math.ceil(frames / tokens.merged)
        video = tokens["video"]
        cells = torch.stack([tokens.frame[video], tokens.row[video], tokens.column[video]], dim=1)
        grid = torch.cartesian_prod(torch.arange(n), torch.arange(rows), torch.arange(columns))
        assert torch.equal(cells, grid)

        # what belongs to a frame is one run, in the order of the frames, and knows when the frame is shown
        owned = torch.isin(tokens.role, torch.tensor([ROLES.index(role) for role in OF_FRAMES]))
        assert torch.equal(owned, tokens.frame >= 0)
        where = owned.nonzero().flatten()
        assert torch.equal(where, torch.arange(int(where[0]), int(where[-1]) + 1))
        assert torch.equal(tokens.frame[where], tokens.frame[where].sort().values)
        # a time is told before the frame that it is the time of
        timed = tokens["timestamp"]
        assert set(tokens.frame[timed].tolist()) in (set(), set(range(n)))
        assert all(int(at) < int(tokens[f"frame {int(tokens.frame[at])}"][0]) for at in timed)
        times = prompt.question.video.seconds[:: tokens.merged]
        torch.testing.assert_close(tokens.seconds[where], times[tokens.frame[where]])
        assert not bool(tokens.seconds[~owned].isfinite().any())

        # placeholders are the video's, and newlines that are parameters
        placed = (prompt.input_ids[0] == model_of(name).frontend.video_token).nonzero().flatten()
        assert set(video.tolist()) <= set(placed.tolist()) <= set((tokens["video | newline"]).tolist())

    check()


def changed_by(name: str, prompt: Prompt, pixels: torch.Tensor) -> torch.Tensor:
    """Positions whose layer-0 residual another video changes."""
    model = model_of(name)
    seconds = prompt.question.video.seconds
    before, after = (
        model.prompt_from_ids(prompt.input_ids, one, seconds=seconds).residual for one in (prompt.pixel_values, pixels)
    )
    torch.testing.assert_close(before, prompt.residual)
    return ((after - before).abs().amax((0, -1)) > 1e-5).nonzero().flatten()


def a_patch(prompt: Prompt, side: int, frame: int, row: int, column: int) -> torch.Tensor:
    """The pixels with one patch of one sampled frame replaced; row and column count patches."""
    pixels = prompt.pixel_values.clone()
    patch = pixels[:, frame, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
    patch.copy_(torch.randn(patch.shape, generator=torch.Generator()))
    return pixels


def patches_of(name: str, prompt: Prompt) -> tuple[int, list[tuple[int, int, int]]]:
    """Pixels that a patch is wide, and some patches: (sampled frame, row, column), corners and others."""
    config = model_of(name).frontend.config
    vision = next(part for key in ("vision_config", "vision_encoder_config") if (part := getattr(config, key, None)))
    side = CASES[name].patch or vision.patch_size
    side = side if isinstance(side, int) else side[0]
    frames, _, height, width = prompt.pixel_values.shape[1:]
    rows, columns = height // side, width // side
    return side, [(0, 0, 0), (frames - 1, rows - 1, columns - 1), (1, rows // 2, 0), (frames - 2, 1, columns - 2)]


@each_family
@torch.no_grad()
def test_a_patch_changes_only_the_tokens_of_its_frame(name) -> None:
    prompt = ask(name, frames=4 if 4 % CASES[name].step == 0 else 2 * CASES[name].step)
    side, places = patches_of(name, prompt)
    for frame, row, column in places:
        changed = changed_by(name, prompt, a_patch(prompt, side, frame, row, column))
        own = prompt.tokens[f"frame {frame // prompt.tokens.merged}"]
        assert len(changed) and set(changed.tolist()) <= set(own.tolist())


@each_family
@torch.no_grad()
def test_a_frame_is_felt_in_its_own_tokens_only(name) -> None:
    """In all of them: the tower's attention goes through a frame, or a group of merged ones, and no further."""
    case = CASES[name]
    prompt = case.prompts(case.ours)[0]
    merged = prompt.tokens.merged
    for frame in range(prompt.pixel_values.shape[1]):
        other = prompt.pixel_values.clone()
        other[:, frame, :, :4, :4] += 1
        changed = case.ours.prompt_from_ids(prompt.input_ids, other)
        moved = (changed.residual != prompt.residual).any(-1)[0].nonzero().flatten()
        assert moved.tolist() == prompt.tokens[f"frame {frame // merged}"].tolist()
        felt = (changed.video_features != prompt.video_features).any((0, -1, -2)).nonzero().flatten()
        assert felt.tolist() == [frame // merged]


@contextmanager
def without_attention(model: HookedVideoTransformer) -> Iterator[None]:
    """Towers whose attention adds nothing: what one patch becomes, no other patch knows."""

    def nothing(module: Any, inputs: Any, output: Any) -> Any:
        return torch.zeros_like(output) if isinstance(output, torch.Tensor) else (output[0] * 0, *output[1:])

    inside = [
        module
        for path, module in model.frontend.parts["tower"].named_modules()
        if path.rpartition(".")[2] in ("self_attn", "attn", "attention")
    ]
    assert inside, "no attention found in the tower"
    handles = [module.register_forward_hook(nothing) for module in inside]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@each_family
@torch.no_grad()
def test_without_attention_a_patch_changes_only_its_own_token(name) -> None:
    with without_attention(model_of(name)):
        prompt = ask(name, frames=4 if 4 % CASES[name].step == 0 else 2 * CASES[name].step)
        tokens = prompt.tokens
        side, places = patches_of(name, prompt)
        _, rows, columns = tokens.grid
        height, width = prompt.pixel_values.shape[-2:]
        for frame, row, column in places:
            changed = changed_by(name, prompt, a_patch(prompt, side, frame, row, column))
            # the cell that holds the patch's centre
            at = ((2 * row + 1) * side * rows // (2 * height), (2 * column + 1) * side * columns // (2 * width))
            if named := CASES[name].cell:
                at = named(row, column, height // side, width // side)
            [own] = tokens[f"f{frame // tokens.merged} r{at[0]} c{at[1]}"].tolist()
            assert own in changed
            assert set(changed.tolist()) <= set(tokens[f"frame {frame // tokens.merged}"].tolist())
            away = torch.maximum((tokens.row[changed] - at[0]).abs(), (tokens.column[changed] - at[1]).abs())
            assert int(away.max()) <= CASES[name].spread
