"""The world of the procedural benchmark: things on a background, their paths, and the pixels.

Everything here is ground truth: a :class:`Scene` says where every thing is in every frame; :func:`render` draws it.
The frame is a torus. A thing that leaves at one edge comes back at the opposite one, so a position says nothing
about a direction: whatever the motion, every position in every frame is equally likely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

SIZE = 64
"""Height and width of a frame in pixels."""
N_FRAMES = 17
"""Frames in a file; the midpoints of eight segments are then frames 1, 3, …, 15, also of the reversed clip."""
FPS = 8

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "orange": (250, 150, 20),
    "yellow": (252, 236, 60),
    "green": (30, 205, 70),
    "blue": (40, 80, 235),
    "purple": (160, 50, 200),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "sand": (214, 186, 140),
    "grass": (84, 120, 74),
    "snow": (232, 238, 246),
    "night": (22, 24, 52),
    "sea": (96, 150, 176),
    "brick": (140, 84, 74),
}


@dataclass(frozen=True)
class Thing:
    """One coloured shape and the centre of it in every frame.

    `path` is [frame, 2], x then y in pixels, already wrapped into [0, SIZE).
    """

    shape: str
    colour: str
    path: Float[np.ndarray, "frame 2"]
    radius: float = 8.0

    @property
    def name(self) -> str:
        """How questions call it: colour and shape."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A whole clip: which background lies behind every frame, and the things, the last one drawn on top."""

    backgrounds: tuple[str, ...]
    things: tuple[Thing, ...]

    @property
    def n_frames(self) -> int:
        """How many frames the clip has."""
        return len(self.backgrounds)

    def reversed(self) -> Scene:
        """The same clip played backwards."""
        things = tuple(replace(thing, path=thing.path[::-1].copy()) for thing in self.things)
        return Scene(self.backgrounds[::-1], things)

    def fingerprint(self) -> bytes:
        """Bytes that two clips share only if they are drawn alike: splits are told apart by these."""
        parts = [",".join(self.backgrounds)]
        for thing in self.things:
            parts.append(f"{thing.shape}{thing.colour}{thing.radius:.3f}{np.round(thing.path, 3).tolist()}")
        return "|".join(parts).encode()


def straight(start: Float[np.ndarray, "2"], velocity: Float[np.ndarray, "frame 2"]) -> Float[np.ndarray, "frame 2"]:
    """The wrapped path from `start` with the velocity (pixels per frame) of each step; the first row is not used."""
    steps = velocity.copy()
    steps[0] = 0.0
    return np.asarray(np.mod(start + np.cumsum(steps, axis=0), SIZE))


def circling(
    centre: Float[np.ndarray, "2"], radius: float, phase: float, step: float, n_frames: int
) -> Float[np.ndarray, "frame 2"]:
    """A circular path; `step` in radians per frame, positive = clockwise as seen (y points down)."""
    angle = phase + step * np.arange(n_frames)
    return np.asarray(np.mod(centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1), SIZE))


def render(scene: Scene, frames: np.ndarray | None = None) -> UInt8[np.ndarray, "frame height width 3"]:
    """Draw the frames (all, or those whose indices are given), anti-aliased, with a dark outline round each thing."""
    index = np.arange(scene.n_frames) if frames is None else np.asarray(frames)
    image = np.stack([_background(scene.backgrounds[i]) for i in index]).astype(np.float32)
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    for thing in scene.things:
        centre = thing.path[index].astype(np.float32)
        dx = _wrapped(grid[None, :] - centre[:, :1])[:, None, :]
        dy = _wrapped(grid[None, :] - centre[:, 1:])[:, :, None]
        distance = _DISTANCE[thing.shape](dx, dy, thing.radius)
        body = np.clip(0.5 - distance, 0, 1)[..., None]
        rim = np.clip(0.5 - np.abs(distance + 0.2) + 0.4, 0, 1)[..., None]
        colour = np.asarray(COLOURS[thing.colour], np.float32)
        image += body * (colour - image)
        image += 0.75 * rim * (colour * 0.25 - image)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _wrapped(offset: np.ndarray) -> np.ndarray:
    return (offset + SIZE / 2) % SIZE - SIZE / 2


def _cross(dx: np.ndarray, dy: np.ndarray, r: float) -> np.ndarray:
    ax, ay = np.abs(dx), np.abs(dy)
    return np.minimum(np.maximum(ax - r, ay - 0.36 * r), np.maximum(ax - 0.36 * r, ay - r))


# how far outside a thing of radius r a pixel is, which lies dx across and dy down from its centre
_DISTANCE: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "circle": lambda dx, dy, r: np.sqrt(dx**2 + dy**2) - r,
    "square": lambda dx, dy, r: np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * r,
    "triangle": lambda dx, dy, r: np.maximum(0.866 * np.abs(dx) - 0.5 * (dy - 0.15 * r), dy - 0.15 * r) - 0.62 * r,
    "cross": _cross,
}


@cache
def _background(name: str) -> np.ndarray:
    """A flat colour with a faint texture that never moves: a scene, not a colour swatch."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    speckle = np.random.default_rng(sum(map(ord, name))).random((SIZE, SIZE))
    texture = {
        "sand": 14 * (speckle - 0.5),
        "grass": 16 * ((x * 7 + (y // 6) * 5) % 9 < 2),
        "snow": -14.0 * (speckle > 0.95),
        "night": 150.0 * (speckle > 0.99),
        "sea": 12 * np.sin(y * 0.9 + 1.4 * np.sin(x * 0.22)),
        "brick": 26 * ((y % 8 == 0) | ((x + 8 * ((y // 8) % 2)) % 16 == 0)),
    }[name]
    return np.asarray(BACKGROUNDS[name], np.float64) + texture[..., None]
