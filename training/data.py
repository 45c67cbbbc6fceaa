"""Training data: scenes drawn in memory, seen once through the frozen tower, several questions packed to a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.prompts import PREFIX, multiple_choice, open_ended, said_aloud
from videolens.datasets.shapes import in_split
from videolens.datasets.shapes_tasks import MAKERS, STILL_TASKS, Ask, describe
from videolens.datasets.shapes_world import SIZE, Scene, render

SAMPLED = np.arange(1, 17, 2)
"""The frames that the front end samples from a 17-frame clip: the midpoints of eight segments."""
GRID = 4
MOTIONS = ("nothing", "still", "left", "right", "up", "down", "clockwise", "anticlockwise")


def as_decoded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What H.264 does to a frame, roughly: colour at half resolution, and a little noise."""
    x = frames.astype(np.float32)
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    chroma = x - luma[..., None]
    t, h, w, _ = chroma.shape
    chroma = chroma.reshape(t, h // 2, 2, w // 2, 2, 3).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    x = luma[..., None] + chroma + rng.normal(0, 1.5, (t, h, w, 1)).astype(np.float32)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def make_scene(task: str, rng: np.random.Generator, split: str = "train") -> tuple[Scene, list[Ask]]:
    """A scene of the split and its questions: the package's own maker, repeated until the split is right."""
    while True:
        scene, asks = MAKERS[task](rng)
        if in_split(scene, split):
            return scene, asks


def motion_targets(scene: Scene, task: str) -> np.ndarray:
    """[8, 16] classes of MOTIONS: what the thing whose centre is in a cell did since the previous sampled frame."""
    target = np.zeros((len(SAMPLED), GRID * GRID), np.int64)
    for thing in scene.things:
        path = thing.path[SAMPLED]
        cell = np.minimum(path // (SIZE / GRID), GRID - 1).astype(int)
        step = np.diff(path, axis=0, prepend=path[:1])
        step = (step + SIZE / 2) % SIZE - SIZE / 2
        for t in range(len(SAMPLED)):
            dx, dy = step[t]
            if max(abs(dx), abs(dy)) < 0.5:
                kind = 1
            elif task == "action antonym":
                sx, sy = step[t] if t else (0, 0)
                cx, cy = path[t] - SIZE / 2
                kind = 6 if cx * sy - cy * sx > 0 else 7
            elif abs(dx) > abs(dy):
                kind = 2 if dx < 0 else 3
            else:
                kind = 4 if dy < 0 else 5
            target[t, cell[t, 1] * GRID + cell[t, 0]] = kind
    target[0] = -100
    return target


def details(scene: Scene, task: str, rng: np.random.Generator) -> list[Ask]:
    """More to ask of a clip, for training only or from other tasks: the denser the answers, the faster it is learnt."""
    asks = []
    if task == "object count":
        for thing in scene.things:
            halves = (thing.path[SAMPLED[:4]], thing.path[SAMPLED[4:]])
            start, end = ("yes" if np.abs(np.diff(path, axis=0)).max() > 0.5 else "no" for path in halves)
            for when, now, other in (("start", start, end), ("end", end, start)):
                stem = f"Is the {thing.name} moving at the {when}?"
                asks.append(Ask("moving", stem, ("yes", "no"), now, other, f"At the {when} it is moving:"))
    elif task not in STILL_TASKS:
        asks += describe(scene, scene.things[-1], rng)
    return asks


@dataclass
class Clips:
    """Clips as the frozen tower sees them, with everything that can be asked."""

    features: Tensor  # [clip, frame, cell, d_vision] float16
    motion: Tensor  # [clip, 2, frame, cell] int64: forwards, backwards
    asks: list[list[Ask]]
    extra: list[list[Ask]]
    task: list[str]
    text: Tensor | None = None
    """[clip, n_text] tokens in the video's place, for clips that are told rather than shown (training/told.py)."""

    def __len__(self) -> int:
        return len(self.asks)


def make_clips(tasks: list[str], n: int, seed: int, see: Any, split: str = "train") -> Clips:
    """`n` clips with the tasks in turn; `see` maps uint8 frames [frame h w c] to features [frame cell d_vision]."""
    rng = np.random.default_rng(seed)
    features, motion, asks, extra, kinds, frames = [], [], [], [], [], []
    for i in range(n):
        task = tasks[i % len(tasks)]
        scene, asked = make_scene(task, rng, split)
        still = task in STILL_TASKS
        frames.append(as_decoded(render(scene, SAMPLED[:1] if still else SAMPLED), rng))
        motion.append(np.stack([motion_targets(s, task) for s in (scene, scene.reversed())]))
        asks.append(asked)
        extra.append(details(scene, task, rng))
        kinds.append(task)
        if len(frames) == 64 or i == n - 1:
            seen = see(np.concatenate(frames))
            at = 0
            for f in frames:
                part = seen[at : at + len(f)]
                features.append(part.expand(len(SAMPLED), -1, -1) if len(f) == 1 else part)
                at += len(f)
            frames = []
    return Clips(torch.stack(features).half(), torch.from_numpy(np.stack(motion)), asks, extra, kinds)


@dataclass(frozen=True)
class Branch:
    """One question after the prefix, in tokens."""

    kind: str
    text: list[int]
    answer: list[int]
    words: tuple[int, int]
    """First and last token of the answer in words."""
    option_ends: Sequence[int] = ()
    option_true: Sequence[float] = ()


@dataclass
class Batch:
    """A packed batch: one prefix with the video, then branches that see the prefix and themselves only."""

    features: Tensor  # [batch frame cell d_vision]
    input_ids: Tensor  # [batch pos]
    position_ids: Tensor  # [batch pos]
    branch: Tensor  # [batch pos]: 0 the prefix, 1… the questions, -1 padding
    target_at: Tensor  # [n, 2] (row, position whose next token is asked)
    target: Tensor  # [n]
    weight: Tensor  # [n]
    kind: list[str]  # per target
    n_prefix: int
    n_slot: int
    video: Tensor  # [pos] bool
    motion: Tensor  # [batch frame cell] classes of MOTIONS
    asked_at: Tensor  # [n_questions, 2] (row, position) of question marks
    asked: Tensor  # [n_questions, 2] first and last token of the answer in words
    option_at: Tensor  # [n_options, 2] (row, position) of the options' last tokens
    option_true: Tensor  # [n_options] float

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)


class Packer:
    """Turns clips into batches: draws branches of a clip at random until the slots are full."""

    n_slot = 54
    """Tokens in a slot: enough for the longest multiple-choice question."""

    def __init__(
        self,
        tokenizer: Any,
        slots: int,
        n_frames: int = 8,
        n_text: int = 0,
        aloud: float = 0.0,
        n_slot: int | None = None,
    ):
        """`aloud`: share of the multiple-choice questions that come with the answer in words before its letter, for
        which a slot must be longer; `n_slot`: another length."""
        self.aloud = aloud
        self.n_slot = n_slot or (60 if aloud else self.n_slot)
        self.tokenizer, self.slots, self.n_frames = tokenizer, slots, n_frames
        ids = tokenizer(PREFIX)["input_ids"]
        self.video = tokenizer.convert_tokens_to_ids("<video>")
        at = ids.index(self.video)
        self.prefix = ids[:at] + [ids[at]] * (n_frames * GRID * GRID or n_text) + ids[at + 1 :]
        self.told = slice(at, at + n_text)
        self.memo: dict[str, list[int]] = {}
        self.mark, self.bracket, self.newline = tokenizer.convert_tokens_to_ids(["?", "▁(", "\n"])

    def encode(self, text: str) -> list[int]:
        if text not in self.memo:
            if len(self.memo) > 200_000:
                self.memo.clear()
            self.memo[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.memo[text]

    def branches(self, clips: Clips, i: int, rng: np.random.Generator, backwards: bool, letters: float) -> list[Branch]:
        """Every question drawn for clip i, the clip's own first."""
        main, side = [], []
        for asks, out, again in ((clips.asks[i], main, 2), (clips.extra[i], side, 1)):
            for ask in asks:
                if backwards:
                    ask = _reversed(ask)
                text, answer = open_ended(ask)
                words = self.encode(answer)
                out.append(Branch("open " + ask.task, self.encode(text), words, (words[0], words[-1])))
                for _ in range(again):
                    if rng.random() < letters:
                        text, letter = multiple_choice(ask, [ask.options[j] for j in rng.permutation(len(ask.options))])
                        ids = self.encode(text)
                        ends = self.option_ends(ids)
                        truth = [float(k == ord(letter) - 65) for k in range(len(ends))]
                        kind = "mc " + ask.task
                        if self.aloud and rng.random() < self.aloud:
                            ids, kind = self.encode(said_aloud(ask, text)), "aloud " + ask.task
                        out.append(Branch(kind, ids, self.encode(letter), (words[0], words[-1]), ends, truth))
        rng.shuffle(main)
        rng.shuffle(side)
        n_side = max(1, len(main) // 2)
        return main[:6] + side[:n_side] + main[6:] + side[n_side:]

    def option_ends(self, ids: list[int]) -> list[int]:
        """Where each option's last token is in the text of a multiple-choice question."""
        starts = [j for j, token in enumerate(ids) if token == self.bracket]
        stop = max(j for j, token in enumerate(ids) if token == self.newline) - 1
        return [j - 1 for j in [*starts[1:], stop]]

    def batch(
        self, clips: Clips, index: np.ndarray, rng: np.random.Generator, letters: float = 1.0, flip: bool = True
    ) -> Batch:
        start, n = len(self.prefix), self.slots * self.n_slot
        ids = np.full((len(index), start + n), self.tokenizer.pad_token_id)
        position, branch = np.zeros_like(ids), np.full_like(ids, -1)
        ids[:, :start], position[:, :start], branch[:, :start] = self.prefix, np.arange(start), 0
        if clips.text is not None:
            ids[:, self.told] = clips.text[index]
        at, target, weight, kind, turned = [], [], [], [], []
        asked_at, asked, option_at, option_true = [], [], [], []
        for row, i in enumerate(index):
            backwards = bool(flip and rng.random() < 0.5)
            turned.append(backwards)
            used = [0] * self.slots
            for b, one in enumerate(self.branches(clips, i, rng, backwards, letters), 1):
                tokens = one.text + one.answer[:-1]
                slot = next((s for s in range(self.slots) if used[s] + len(tokens) <= self.n_slot), None)
                if slot is None:
                    continue
                first = start + slot * self.n_slot + used[slot]
                used[slot] += len(tokens)
                here = slice(first, first + len(tokens))
                ids[row, here], branch[row, here] = tokens, b
                position[row, here] = start + np.arange(len(tokens))
                for j, token in enumerate(one.answer):
                    at.append((row, first + len(one.text) - 1 + j))
                    target.append(token)
                    weight.append(1.0 / len(one.answer))
                    kind.append(one.kind if j == 0 else "more")
                asked_at.append((row, first + one.text.index(self.mark)))
                asked.append(one.words)
                option_at += [(row, first + end) for end in one.option_ends]
                option_true += one.option_true
        features, motion = clips.features[index], clips.motion[index]
        back = torch.tensor(turned)
        features = torch.where(back[:, None, None, None], features.flip(1), features)[:, : self.n_frames]
        return Batch(
            features.float(),
            torch.from_numpy(ids),
            torch.from_numpy(position),
            torch.from_numpy(branch),
            torch.tensor(at),
            torch.tensor(target),
            torch.tensor(weight),
            kind,
            start,
            self.n_slot,
            torch.from_numpy(ids[0] == self.video),
            torch.where(back[:, None, None], motion[:, 1], motion[:, 0])[:, : self.n_frames],
            torch.tensor(asked_at),
            torch.tensor(asked),
            torch.tensor(option_at),
            torch.tensor(option_true),
        )


def _reversed(ask: Ask) -> Ask:
    return Ask(ask.task, ask.stem, ask.options, ask.answer_reversed, ask.answer, ask.completion)
