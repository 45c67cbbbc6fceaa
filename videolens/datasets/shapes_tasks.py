"""What is asked about the procedural clips: one function per task makes a scene and its question.

Time is needed by construction. Paths start anywhere on a torus, circles at any phase, and every clip is as likely as
its reversal; so one frame, even with its index, says nothing about the answer. The one exemption is *scene
transition*, where a frame *and its index* give the answer away (the first background is the one it comes *from*); one
frame without its index does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from videolens.datasets.shapes_world import (
    BACKGROUNDS,
    COLOURS,
    N_FRAMES,
    SHAPES,
    SIZE,
    Scene,
    Thing,
    circling,
    straight,
)

TEMPORAL_TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")
STILL_TASKS = ("colour", "shape", "place", "number", "background")
TASKS = TEMPORAL_TASKS + STILL_TASKS

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SENSES = ("clockwise", "anticlockwise")
NUMBERS = ("none", "one", "two", "three", "four")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SPEED = (3.0, 5.5)
"""Pixels per frame; between two of eight sampled frames a thing moves 6 to 11 pixels, under a fifth of the torus."""


@dataclass(frozen=True)
class Ask:
    """One question about a scene, in words.

    `options` are in no particular order (letters are dealt later); `answer_reversed` is what is right when the same
    clip is played backwards; `completion` is the beginning of a sentence that the answer ends; `moves` is the shape of
    the thing that moves, where exactly one does.
    """

    task: str
    stem: str
    options: tuple[str, ...]
    answer: str
    answer_reversed: str
    completion: str
    moves: str | None = None


# --- scenes -----------------------------------------------------------------------------------------------------------


def _look(rng: np.random.Generator, n: int) -> list[tuple[str, str]]:
    """Shapes and colours for `n` things that share neither: "the red thing" and "the circle" are unambiguous."""
    shapes, colours = rng.permutation(SHAPES)[:n], rng.permutation(list(COLOURS))[:n]
    return [(str(s), str(c)) for s, c in zip(shapes, colours, strict=True)]


def _anywhere(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, SIZE, 2)


def _still(position: np.ndarray) -> np.ndarray:
    return np.tile(np.mod(position, SIZE), (N_FRAMES, 1))


def _moving(rng: np.random.Generator, first: str, last: str) -> np.ndarray:
    """A path that goes one way for the first half of the steps and another for the second, from anywhere.

    The turn falls on frame 7, 8 or 9 of 17, evenly round the middle, so that a reversal is as likely.
    """
    speed = rng.uniform(*SPEED)
    turn = int(rng.integers(8, 11))
    velocity = speed * np.array([DIRECTIONS[first], DIRECTIONS[last]], float)
    return straight(_anywhere(rng), np.repeat(velocity, [turn, N_FRAMES - turn], axis=0))


def _background(rng: np.random.Generator) -> tuple[str, ...]:
    return (str(rng.choice(list(BACKGROUNDS))),) * N_FRAMES


def moving_direction(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """One thing moves at constant velocity round the torus; half of the clips have a second one that stays."""
    direction = str(rng.choice(list(DIRECTIONS)))
    (shape, colour), (shape2, colour2) = _look(rng, 2)
    mover = Thing(shape, colour, _moving(rng, direction, direction))
    still = Thing(shape2, colour2, _still(_anywhere(rng)))
    scene = Scene(_background(rng), (still, mover) if rng.random() < 0.5 else (mover,))
    stem, begun = f"Which way does the {mover.name} move?", f"The {mover.name} moves"
    back = OPPOSITE[direction]
    return scene, [Ask("moving direction", stem, tuple(DIRECTIONS), direction, back, begun, moves=shape)]


def action_antonym(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """One thing goes round in a circle from a random phase: clockwise or anticlockwise."""
    sense = str(rng.choice(SENSES))
    (shape, colour) = _look(rng, 1)[0]
    step = rng.uniform(0.32, 0.55) * (1 if sense == "clockwise" else -1)
    centre = SIZE / 2 + rng.uniform(-7, 7, 2)
    thing = Thing(shape, colour, circling(centre, rng.uniform(14, 20), rng.uniform(0, 2 * np.pi), step, N_FRAMES))
    stem, begun = f"Which way round does the {thing.name} go?", f"The {thing.name} goes round"
    back = SENSES[1 - SENSES.index(sense)]
    return Scene(_background(rng), (thing,)), [Ask("action antonym", stem, SENSES, sense, back, begun)]


def action_sequence(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """One thing moves one way, then turns a corner; asked is what it does first or last."""
    first = str(rng.choice(list(DIRECTIONS)))
    last = str(rng.choice([d for d in DIRECTIONS if d not in (first, OPPOSITE[first])]))
    (shape, colour) = _look(rng, 1)[0]
    thing = Thing(shape, colour, _moving(rng, first, last))
    asks = []
    for when, now, other in (("first", first, last), ("last", last, first)):
        stem, begun = f"Which way does the {thing.name} move {when}?", f"The {thing.name} {when} moves"
        asks.append(Ask("action sequence", stem, tuple(DIRECTIONS), now, OPPOSITE[other], begun))
    return Scene(_background(rng), (thing,)), asks


def object_count(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """Three things in three lanes; some move in the first half, another number of them in the second."""
    start, end = (int(k) for k in rng.permutation(4)[:2])
    moves = [set(rng.permutation(3)[:k].tolist()) for k in (start, end)]
    things = []
    for lane, (shape, colour) in enumerate(_look(rng, 3)):
        y = SIZE * (lane + 0.5) / 3 + rng.uniform(-2.5, 2.5)
        velocity = np.zeros((N_FRAMES, 2))
        turn = int(rng.integers(8, 11))
        for half, steps in enumerate((slice(None, turn), slice(turn, None))):
            if lane in moves[half]:
                velocity[steps, 0] = rng.uniform(*SPEED) * rng.choice([-1, 1])
        things.append(Thing(shape, colour, straight(np.array([rng.uniform(0, SIZE), y]), velocity)))
    asks = []
    for when, now, other in (("start", start, end), ("end", end, start)):
        stem, begun = f"How many shapes are moving at the {when}?", f"The number of shapes moving at the {when} is"
        asks.append(Ask("object count", stem, NUMBERS[:4], NUMBERS[now], NUMBERS[other], begun))
    return Scene(_background(rng), tuple(things)), asks


def scene_transition(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """The background changes once, near the middle; a thing stays or moves meanwhile."""
    before, after = (str(b) for b in rng.permutation(list(BACKGROUNDS))[:2])
    cut = int(rng.integers(7, 11))
    (shape, colour) = _look(rng, 1)[0]
    direction = str(rng.choice(list(DIRECTIONS)))
    path = _moving(rng, direction, direction) if rng.random() < 0.5 else _still(_anywhere(rng))
    there, back = f"{before} to {after}", f"{after} to {before}"
    ask = Ask("scene transition", "How does the scene change?", (there, back), there, back, "The scene changes from")
    return Scene((before,) * cut + (after,) * (N_FRAMES - cut), (Thing(shape, colour, path),)), [ask]


def stills(rng: np.random.Generator) -> tuple[Scene, list[Ask]]:
    """One to four things, each in a quarter of its own, and nothing moves: five questions that need no time."""
    n = int(rng.integers(1, 5))
    quarters = rng.permutation(4)[:n]
    things = []
    for quarter, (shape, colour) in zip(quarters, _look(rng, n), strict=True):
        corner = np.array([quarter % 2, quarter // 2]) * SIZE / 2
        things.append(Thing(shape, colour, _still(corner + rng.uniform(9, SIZE / 2 - 9, 2))))
    scene = Scene(_background(rng), tuple(things))
    i = int(rng.integers(n))
    name, place = things[i].name, PLACES[quarters[i]]
    return scene, [
        *describe(scene, things[i], rng),
        Ask("place", f"Where is the {name}?", PLACES, place, place, f"The {name} is at the"),
        Ask("number", "How many shapes are there?", NUMBERS[1:], NUMBERS[n], NUMBERS[n], "The number of shapes is"),
    ]


def describe(scene: Scene, thing: Thing, rng: np.random.Generator) -> list[Ask]:
    """What one look at any frame tells: the thing's colour and shape, and the background (of a clip with one)."""
    shape, colour = thing.shape, thing.colour
    colours = _choices(rng, colour, [t.colour for t in scene.things], list(COLOURS))
    asks = [
        Ask("colour", f"What colour is the {shape}?", colours, colour, colour, f"The {shape} is"),
        Ask("shape", f"What shape is the {colour} thing?", SHAPES, shape, shape, f"The {colour} thing is a"),
    ]
    if len(set(scene.backgrounds)) == 1:
        back = scene.backgrounds[0]
        options = _choices(rng, back, [], list(BACKGROUNDS))
        asks.append(Ask("background", "What is the background?", options, back, back, "The background is"))
    return asks


def _choices(rng: np.random.Generator, answer: str, seen: list[str], known: list[str]) -> tuple[str, ...]:
    """Four options: the answer, then what else is in sight (the hard ones), then anything."""
    others = [c for c in dict.fromkeys([*seen, *rng.permutation(known).tolist()]) if c != answer]
    return (answer, *others[:3])


MAKERS: dict[str, Callable[[np.random.Generator], tuple[Scene, list[Ask]]]] = {
    "moving direction": moving_direction,
    "action antonym": action_antonym,
    "action sequence": action_sequence,
    "object count": object_count,
    "scene transition": scene_transition,
    **dict.fromkeys(STILL_TASKS, stills),
}
"""Task → the function that makes a scene and every question of that kind about it."""
