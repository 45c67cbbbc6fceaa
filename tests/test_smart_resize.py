"""Resizing to whole blocks within a budget of pixels, against the processors of transformers."""

from __future__ import annotations

import pytest
import torch
from helpers.clips import clip
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from videolens.errors import ModelError
from videolens.model.vision.smart_resize import SmartResize, smart_size

PUBLISHED = {  # preprocessor_config.json as Qwen2-VL-7B-Instruct is published
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
NEW_KEYS = {
    **{key: value for key, value in PUBLISHED.items() if "pixels" not in key},
    "size": {"shortest_edge": 3136, "longest_edge": 12845056},
}
SMALL = PUBLISHED | {"min_pixels": 4 * 28 * 28, "max_pixels": 30 * 28 * 28}


@pytest.mark.parametrize("factor", [28, 16])
def test_sizes_of_transformers(factor: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in torch.randint(20, 900, (300, 2), generator=generator).tolist():
        budget = {"min_pixels": 60 * factor * factor, "max_pixels": 400 * factor * factor}
        ours = smart_size(height, width, factor=factor, **budget)
        assert ours == smart_resize(height, width, factor=factor, **budget)
        assert ours[0] % factor == ours[1] % factor == 0


def test_halves_round_to_the_even_block() -> None:
    assert smart_size(42, 70, factor=28, min_pixels=1, max_pixels=10**6) == (56, 56)


@pytest.mark.parametrize("settings", [PUBLISHED, NEW_KEYS, SMALL], ids=["published", "new keys", "small"])
@pytest.mark.parametrize("shape", [(120, 160), (97, 131), (260, 90), (56, 84), (20, 20)])
def test_pixels_of_the_processor_of_transformers(settings, shape) -> None:
    frames = clip(*shape)
    pixels = SmartResize.from_dict(settings).prepare(frames)
    _, _, height, width = pixels.shape
    # PIL resizes across, then down; Pillow 13 takes the other order for some shapes, so two calls fix it here
    images = [
        Image.fromarray(frame)
        .resize((width, shape[0]), Image.Resampling.BICUBIC)
        .resize((width, height), Image.Resampling.BICUBIC)
        for frame in frames.numpy()
    ]
    plain = Qwen2VLImageProcessorPil(**settings)
    flat = plain(images, return_tensors="pt", do_resize=False)
    assert plain(Image.fromarray(frames[0].numpy()), return_tensors="pt")["image_grid_thw"].tolist() == [
        [1, height // 14, width // 14]
    ]
    mine = pixels[:, :, None].expand(-1, -1, 2, -1, -1)  # the image processor doubles a single frame
    patches = mine.reshape(2, 3, 2, height // 28, 2, 14, width // 28, 2, 14).permute(0, 3, 6, 4, 7, 1, 2, 5, 8)
    assert (patches.reshape(flat["pixel_values"].shape) - flat["pixel_values"]).abs().max() <= 1e-5


def test_old_and_new_keys_and_defaults() -> None:
    old, new = SmartResize.from_dict(PUBLISHED), SmartResize.from_dict(NEW_KEYS)
    assert (old.min_pixels, old.max_pixels, old.factor) == (new.min_pixels, new.max_pixels, new.factor)
    assert SmartResize.from_dict({"size": {"min_pixels": 784, "max_pixels": 7840}}).max_pixels == 7840
    # where both are given, the ones beside `size` count
    assert SmartResize.from_dict(PUBLISHED | {"size": {"shortest_edge": 1, "longest_edge": 2}}) == old
    assert SmartResize.from_dict({}).max_pixels == 768 * 28 * 28


def test_a_budget_that_frames_share() -> None:
    shared = SmartResize.from_dict(SMALL, shared=True)
    assert shared.size(1, 280, 280) == (140, 140)  # 30 blocks: 5 × 5
    assert shared.size(4, 280, 280) == (56, 56)  # 7 each
    capped = SmartResize.from_dict(SMALL | {"cap_pixels_per_frame": True, "max_video_tokens": 40})
    assert capped.size(2, 280, 280) == (140, 140)
    assert capped.size(12, 280, 280) == (56, 56)  # 36 blocks for a pair: 6 each
    assert capped.size(1000, 280, 280) == (56, 56)  # never below 1.05 times the least


def test_nothing_is_resized_where_the_preprocessor_says_so() -> None:
    as_they_are = SmartResize.from_dict(SMALL | {"do_resize": False})
    assert as_they_are.prepare(clip(56, 700)).shape == (2, 3, 56, 700)
    with pytest.raises(ModelError, match="blocks of 28 × 28"):
        as_they_are.prepare(clip(56, 701))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: smart_size(2000, 9, factor=28, min_pixels=1, max_pixels=10**6), "200 times"),
        (lambda: SmartResize.from_dict({"size": {"height": 3, "width": 4}}), "shortest_edge"),
        (lambda: SmartResize.from_dict({"min_pixels": 10, "max_pixels": 5}), "10 to 5"),
        (lambda: SmartResize.from_dict({"resample": 4}), "filter 4"),
    ],
)
def test_what_cannot_be_resized_is_said(act, message) -> None:
    with pytest.raises(ModelError, match=message):
        act()
