"""What is done to every picture of a clip: noise, blur, compression, light, what covers it, what else moves in it.

Lengths are shares of the shorter side, so that they mean the same at any size; levels run from 0 to 255. Severities
share their random numbers: a square that covers more covers the same place and more.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

Pictures = UInt8[np.ndarray, "frame height width 3"]
ChangePictures = Callable[[Pictures, int, np.random.Generator], Pictures]
"""(pictures, severity 1 … 3, random numbers) → pictures."""

_CORNERS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
_LOOKED_AT = 2**14  # pixels whose colours a distractor's must differ from


def noise(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """Gaussian noise of σ = 8, 16, 32 levels, for every colour of every pixel."""
    sigma = (8, 16, 32)[severity - 1]
    each = (one + sigma * rng.standard_normal(one.shape, dtype=np.float32) for one in pictures)
    return np.stack([_levels(one) for one in each])


def blur(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """PIL's Gaussian blur, of 1/64, 1/32, 1/16 of the shorter side."""
    radius = _side(pictures) / (64, 32, 16)[severity - 1]
    return _by_pil(pictures, lambda one: one.filter(ImageFilter.GaussianBlur(radius)))


def compression(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """JPEG of quality 30, 15, 5."""

    def compressed(one: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        one.save(buffer, "JPEG", quality=(30, 15, 5)[severity - 1])
        return Image.open(buffer).convert("RGB")

    return _by_pil(pictures, compressed)


def brightness(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """30, 60, 90 levels brighter or darker, by chance."""
    return _levels(pictures + rng.choice([-1.0, 1.0]) * (30, 60, 90)[severity - 1])


def contrast(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """0.7, 0.4, 0.2 of the contrast, about the clip's mean level."""
    mean = float(pictures.mean())
    return _levels(mean + (0.7, 0.4, 0.2)[severity - 1] * (pictures - mean))


def occlusion(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """A grey square of 0.2, 0.35, 0.5 of the shorter side, in one place of all pictures."""
    shares = (0.2, 0.35, 0.5)
    height, width = pictures.shape[1:3]
    half, most = (share * _side(pictures) / 2 for share in (shares[severity - 1], shares[-1]))
    centre = [rng.uniform(most, length - most) for length in (height, width)]
    y, x = (np.abs(np.arange(length) + 0.5 - at) < half for length, at in zip((height, width), centre, strict=True))
    changed = pictures.copy()
    changed[:, y[:, None] & x] = 128
    return changed


def shift(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """All pictures moved by 1/16, 1/8, 1/4 of the shorter side, one of eight ways; the pixels at the edge repeated."""
    by = round(_side(pictures) / (16, 8, 4)[severity - 1])
    ways = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    way = ways[rng.integers(len(ways))]
    rows, columns = (
        np.clip(np.arange(length) - sign * by, 0, length - 1)
        for length, sign in zip(pictures.shape[1:3], way, strict=True)
    )
    return pictures[:, rows][:, :, columns]


def distractor(pictures: Pictures, severity: int, rng: np.random.Generator) -> Pictures:
    """One, two, three moving things, discs and squares, 1/6 of the shorter side wide, of a colour that nothing in the
    clip comes near. They go straight, a third of the shorter side to all of it in the clip, and turn at the edges."""
    colour, changed = _colour_apart_from(pictures), pictures.copy()
    for things in _things(len(pictures), pictures.shape[1:3], severity, rng):
        changed[things] = colour
    return changed


PICTURES: dict[str, ChangePictures] = {
    "noise": noise,
    "blur": blur,
    "compression": compression,
    "brightness": brightness,
    "contrast": contrast,
    "occlusion": occlusion,
    "shift": shift,
    "distractor": distractor,
}


def _things(
    n: int, size: tuple[int, ...], count: int, rng: np.random.Generator
) -> Iterator[Bool[np.ndarray, "frame height width"]]:
    """Where each thing is: the pixels whose centres lie in it."""
    side, lengths = min(size), np.array(size, float)
    radius = side / 12
    for _ in range(count):
        start, angle = rng.uniform(radius, lengths - radius), rng.uniform(0, 2 * np.pi)
        way, disc = rng.uniform(1 / 3, 1) * side, rng.random() < 0.5
        along = np.linspace(0, way, n)[:, None] * np.array([np.sin(angle), np.cos(angle)])
        at = _turned_back(start + along - radius, lengths - 2 * radius) + radius
        y, x = (np.arange(length) + 0.5 - at[:, [axis]] for axis, length in enumerate(size))
        y, x = y[:, :, None], x[:, None, :]
        yield (y**2 + x**2 <= radius**2) if disc else (np.maximum(np.abs(y), np.abs(x)) <= radius)


def _turned_back(at: Float[np.ndarray, "frame 2"], length: Float[np.ndarray, "2"]) -> Float[np.ndarray, "frame 2"]:
    """Positions between 0 and `length`, where walls throw back what would pass them."""
    at = np.mod(at, 2 * length)
    return np.minimum(at, 2 * length - at)


def _colour_apart_from(pictures: Pictures) -> UInt8[np.ndarray, "3"]:
    """The corner of the colour cube whose distance to the nearest of the clip's pixels is largest."""
    pixels = pictures.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // _LOOKED_AT)].astype(float)
    nearest = [((pixels - corner) ** 2).sum(axis=1).min() for corner in _CORNERS]
    return _CORNERS[int(np.argmax(nearest))].astype(np.uint8)


def _by_pil(pictures: Pictures, change: Callable[[Image.Image], Image.Image]) -> Pictures:
    return np.stack([np.asarray(change(Image.fromarray(one))) for one in pictures])


def _levels(values: np.ndarray) -> np.ndarray:
    """Whole levels, 0 … 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _side(pictures: Pictures) -> int:
    return min(pictures.shape[1:3])
