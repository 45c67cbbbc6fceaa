"""Frame preparation against the PIL-backed image processor of transformers."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.clips import clip
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from videolens.errors import ModelError
from videolens.model.vision.pixels import FILES, PixelSettings, preparation_of

CLIP = {
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 64, "width": 64},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
VARIANTS = {
    "shorter edge, centre crop": {},
    "Lanczos": {"resample": 1},
    "bilinear, not square": {"resample": 2, "crop_size": {"height": 48, "width": 64}},
    "exact size": {"size": {"height": 40, "width": 56}, "do_center_crop": False},
    "as high as a frame": {"size": {"height": 120, "width": 56}, "do_center_crop": False},
    "crop larger than the frame": {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 64}},
    "nothing but pixels": {"do_resize": False, "do_center_crop": False, "do_normalize": False},
}


def original(frames: torch.Tensor, settings: dict) -> dict:
    """The processor of transformers. PIL resizes across, then down; Pillow 13 takes the other order for some shapes,
    which moves single pixels at hard edges by several levels, so two calls fix the order here."""
    images = [Image.fromarray(frame) for frame in frames.numpy()]
    if settings.get("do_resize", True):
        height, width = frames.shape[1:3]
        size = settings["size"]
        short = size.get("shortest_edge")
        across, down = (
            (int(short * width / min(height, width)), int(short * height / min(height, width)))
            if short
            else (size["width"], size["height"])
        )
        filter_ = Image.Resampling(settings["resample"])
        images = [image.resize((across, height), filter_).resize((across, down), filter_) for image in images]
    return CLIPImageProcessorPil(**settings | {"do_resize": False})(images, return_tensors="pt")


@pytest.mark.parametrize("shape", [(64, 64), (240, 320), (90, 161)])
def test_pixels_of_landscape_clips_straight_from_the_original_processor(shape) -> None:
    frames = clip(*shape)
    theirs = CLIPImageProcessorPil(**CLIP)([Image.fromarray(frame) for frame in frames.numpy()], return_tensors="pt")
    ours = PixelSettings.from_dict(CLIP).prepare(frames)
    assert (ours - theirs["pixel_values"]).abs().max() <= 1e-5


@pytest.mark.parametrize("shape", [(64, 64), (120, 90), (90, 161), (37, 53)])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_pixels_are_those_of_the_original_processor(variant, shape) -> None:
    settings = CLIP | VARIANTS[variant]
    frames = clip(*shape)
    theirs = original(frames, settings)
    ours = PixelSettings.from_dict(settings).prepare(frames)
    assert ours.shape == theirs["pixel_values"].shape
    level = 1 / 255 / min(settings["image_std"] if settings.get("do_normalize", True) else [1.0])
    difference = (ours - theirs["pixel_values"]).abs()
    # not one level differs; what is left is float32 rounding of the normalisation
    assert difference.max() <= level / 1000


def test_frames_of_the_right_size_are_only_scaled() -> None:
    frames = clip(64, 64)
    pixels = PixelSettings.from_dict(CLIP).prepare(frames)
    mean, std = torch.tensor(CLIP["image_mean"]), torch.tensor(CLIP["image_std"])
    expected = (frames.float() / 255 - mean) / std
    torch.testing.assert_close(pixels, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", FILES)
def test_settings_are_found_in_each_file(tmp_path, name) -> None:
    settings = {"video_processor": CLIP} if name == "processor_config.json" else CLIP
    (tmp_path / name).write_text(json.dumps(settings))
    found = preparation_of(tmp_path)
    assert found == PixelSettings(
        size=64, crop=(64, 64), resample=3, rescale=1 / 255, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
    )


def test_the_video_settings_come_before_the_image_settings(tmp_path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP | {"size": {"shortest_edge": 99}}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "X"}))
    assert preparation_of(tmp_path).size == 99
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(CLIP))
    assert preparation_of(tmp_path).size == 64


def test_no_file_no_settings_and_a_broken_file_is_named(tmp_path) -> None:
    assert preparation_of(tmp_path) is None
    (tmp_path / FILES[0]).write_text("{")
    with pytest.raises(ModelError, match=r"video_preprocessor_config\.json is not JSON"):
        preparation_of(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resample": 4}, r"resampling filter 4; known: .*3 \(bicubic\)"),
        ({"size": {"longest_edge": 9}}, "size .* is not understood"),
    ],
)
def test_settings_that_cannot_be_followed(wrong, message) -> None:
    with pytest.raises(ModelError, match=message):
        PixelSettings.from_dict(CLIP | wrong)
