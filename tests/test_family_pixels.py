"""Every family prepares frames as the processors of transformers do, from the checkpoint's own preprocessor file."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from einops import rearrange
from helpers.clips import clip
from helpers.families import CASES, each_family, family_named
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from videolens.model.vision.pixels import preparation_of

LEVEL = 1 / 255


@contextmanager
def across_then_down() -> Iterator[None]:
    """PIL resizes across, then down; Pillow 13 takes the other order for some shapes, which moves single pixels at hard
    edges by several levels. Two calls fix the order."""
    resize = Image.Image.resize

    def in_order(self: Image.Image, size: tuple[int, int], *args: Any, **kwargs: Any) -> Image.Image:
        return resize(resize(self, (size[0], self.height), *args, **kwargs), size, *args, **kwargs)

    Image.Image.resize = in_order  # type: ignore[method-assign]
    try:
        yield
    finally:
        Image.Image.resize = resize  # type: ignore[method-assign]


def whole(patches: Tensor, grid: Tensor, said: dict[str, Any], *, group: int) -> Tensor:
    """Frames [frame channel height width] put together again from flat patches."""
    merge, size = said["merge_size"], said["patch_size"]
    _, rows, columns = grid[0].tolist()
    return rearrange(
        patches,
        "(frame row column mh mw) (channel group ph pw) -> (frame group) channel (row mh ph) (column mw pw)",
        row=rows // merge,
        column=columns // merge,
        mh=merge,
        mw=merge,
        group=group,
        ph=size,
        pw=size,
    )


def ours(name: str, frames: Tensor, directory: Any) -> Tensor:
    (directory / "preprocessor_config.json").write_text(json.dumps(CASES[name].published))
    prepare = preparation_of(directory, family_named(name).pixels)
    assert prepare is not None
    return prepare.prepare(frames)


def levels(pixels: Tensor, said: dict[str, Any]) -> Tensor:
    """Before normalisation: 0 … 1."""
    mean, std = (torch.tensor(said[key])[:, None, None] for key in ("image_mean", "image_std"))
    return pixels * std + mean


@each_family
def test_frames_are_those_of_the_image_processor(name, tmp_path_factory) -> None:
    directory, said = tmp_path_factory.mktemp(name), CASES[name].published

    @settings(max_examples=5)
    @given(st.integers(30, 300), st.integers(30, 400))
    def check(height: int, width: int) -> None:
        frames = clip(height, width, frames=4)
        with across_then_down():
            images = [Image.fromarray(frame) for frame in frames.numpy()]
            theirs = CASES[name].image_processor(said, len(frames))(images, return_tensors="pt")
        expected = theirs["pixel_values"]
        if "image_grid_thw" in theirs:
            # an image stands for all frames of its group
            group = said.get("temporal_patch_size", 1)
            expected = whole(expected, theirs["image_grid_thw"], {"merge_size": 2, **said}, group=group)[::group]
        found = ours(name, frames, directory)
        assert found.shape == expected.shape
        assert (levels(found, said) - levels(expected, said)).abs().max() <= LEVEL

    check()


@pytest.mark.parametrize("shape", [(120, 160), (240, 135), (97, 203)])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.video_processor])
def test_clips_are_those_of_the_video_processor(name, shape, tmp_path) -> None:
    pytest.importorskip(
        "torchvision", reason="the video processors of transformers need torchvision, which videolens does not"
    )
    said, (module, kind) = CASES[name].published, CASES[name].video_processor
    processor = getattr(importlib.import_module(f"transformers.models.{module}.video_processing_{module}"), kind)
    frames = clip(*shape, frames=4)
    theirs = processor(**said)(
        [rearrange(frames, "frame height width channel -> frame channel height width")], return_tensors="pt"
    )
    expected = theirs["pixel_values_videos"]
    if "video_grid_thw" in theirs:
        expected = whole(expected, theirs["video_grid_thw"], said, group=said["temporal_patch_size"])
    else:
        expected = expected[0]
    found = ours(name, frames, tmp_path)
    assert found.shape == expected.shape
    off = (levels(found, said) - levels(expected, said)).abs() / LEVEL
    # torchvision resizes with coarser weights than PIL, whose levels ours are. Seen with torchvision 0.28.0, torch
    # 2.13.0 and transformers 5.23.0: 2 levels at single pixels of hard edges, at most 0.02 on average
    assert off.max() <= 2.01 and off.mean() <= 0.05
