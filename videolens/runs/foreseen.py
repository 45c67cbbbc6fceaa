"""What a run will take, before anything is downloaded: memory, and forwards per question of every experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.engine.memory import memory_budget
from videolens.errors import VideolensError
from videolens.model.shape import model_shape, n_parameters, prompt_shape, weight_bytes
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question
from videolens.runs.config import RunConfig, read_config
from videolens.runs.making import experiments_of, questions_of
from videolens.video.video import Video

_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SIDE = 336  # of the frames of an assumed question, where a preprocessor prepares them


@dataclass(frozen=True)
class ExperimentForeseen:
    """One experiment of a run.

    Attributes:
        label: its name in the run.
        cost: of a question, of those looked at the dearest; None: not known beforehand.
        reason: why it is not known.
        fits: whether it runs like this, as far as that is known.
    """

    label: str
    cost: Foreseen | None
    reason: str = ""
    fits: bool = True


@dataclass(frozen=True)
class RunForeseen:
    """What a run will take.

    Attributes:
        model: what it is called.
        n_parameters: numbers of its weights.
        dtype: of weights and activations.
        device: where it will be.
        weight_bytes: of the weights in this dtype.
        bytes_by_dtype: of the weights, in others too.
        device_bytes: memory of the device.
        budget: what the engine may use of what the weights leave.
        n_questions: how many are asked; None: the data set is not here.
        n_pos, n_video: tokens of the longest prompt looked at, and how many of them are video.
        assumed: what stands for what is not here, in sentences.
        experiments: each of them.
    """

    model: str
    n_parameters: int
    dtype: str
    device: str
    weight_bytes: int
    bytes_by_dtype: Mapping[str, int]
    device_bytes: int
    budget: int
    n_questions: int | None
    n_pos: int
    n_video: int
    assumed: tuple[str, ...]
    experiments: tuple[ExperimentForeseen, ...]

    @property
    def left(self) -> int:
        """Bytes of the device besides the weights; below 0 where these do not fit."""
        return self.device_bytes - self.weight_bytes

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it will not run like this, and what to change; empty: it fits."""
        if self.left <= 0:
            smaller = [name for name, n in self.bytes_by_dtype.items() if n < min(self.weight_bytes, self.device_bytes)]
            advice = f"--dtype {smaller[0]}, or " if smaller else ""
            return (
                f"the weights take {_gib(self.weight_bytes)} and the device has {_gib(self.device_bytes)}: {advice}"
                f"a device with more than {_gib(self.weight_bytes)}, or a checkpoint in 4 or 8 bits (docs/models.md)",
            )
        return tuple(f"{each.label}: {each.reason}" for each in self.experiments if not each.fits)

    @property
    def fits(self) -> bool:
        """Whether weights and all that is counted fit."""
        return not self.problems

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {_gib(n)}" for name, n in self.bytes_by_dtype.items())
        asked = "?" if self.n_questions is None else f"{self.n_questions:,}"
        lines = [
            f"{self.model}: {_count(self.n_parameters)} parameters; weights: {sizes}",
            f"{self.dtype} on {self.device} with {_gib(self.device_bytes)}: {_gib(self.weight_bytes)} of weights, "
            f"{_gib(max(self.left, 0))} left, of which the engine may use {_gib(self.budget)}",
            f"{asked} questions of {self.n_pos:,} tokens, {self.n_video:,} of them video",
            *self.assumed,
            "",
            "experiment                  forwards per question   published way     ratio   memory besides   rounds",
        ]
        for each in self.experiments:
            if (cost := each.cost) is None:
                lines.append(f"{each.label:27.27s} {each.reason or 'not known before it runs'}")
                continue
            memory = "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:,.0f} MiB"
            lines.append(
                f"{each.label:27.27s} {cost.forwards:21.1f} {cost.full_forwards:15,.0f} "
                f"{cost.full_forwards / cost.forwards:9.1f} {memory:>16s} {cost.rounds:8d}"
            )
        known = [each.cost for each in self.experiments if each.cost is not None]
        if known and self.n_questions is not None:
            ours, theirs = (sum(values) * self.n_questions for values in _columns(known))
            lines.append(f"in all: {ours:,.0f} forwards, by the published way {theirs:,.0f}")
        whole = not any(each.reason for each in self.experiments)
        verdict = (
            ["it fits" if whole else "what is counted fits"]
            if self.fits
            else [f"it does not fit: {each}" for each in self.problems]
        )
        return "\n".join([*lines, "", *verdict])


def foresee_run(
    config: Mapping[str, Any] | str | Path | RunConfig,
    *,
    model: str | os.PathLike[str] | None = None,
    device_memory: int | None = None,
    per_task: int = 1,
) -> RunForeseen:
    """What a run will take. Nothing is downloaded and no weight is read; the model needs no more than config.json.

    1. The model's shape, and the bytes of its weights.
    2. Of the device's memory, what the weights leave; half of it is what the engine takes, as in a run.
    3. Prompts of the first questions of every task. Where the data set is not here, of one that is assumed.
    4. What every experiment costs for each of them, as the engine plans it; the dearest counts.

    Args:
        config: as `run` takes it.
        model: where the model's config.json lies, if not where the run's config says: a directory or the file.
        device_memory: bytes of the device; None: of the config's device, which is then the one here.
        per_task: questions of each task that are looked at.

    Raises:
        VideolensError: a config that a run would refuse; a device that is not here and whose memory is not given; a
            clip that cannot be read.
        ModelError: no config.json here, or one of no model that is read.
    """
    config = read_config(config)
    asked = config.model
    # 1.
    shape = model_shape(
        asked["name"] if model is None else model,
        dtype=asked["dtype"],
        base=asked.get("base") if model is None else None,
        trust_remote_code=asked["trust_remote_code"],
    )
    weights = weight_bytes(shape)
    # 2.
    device, memory = _device(asked["device"], device_memory)
    machine = Machine(max(1, (memory - weights) // 2), device)
    # 3.
    questions, n_questions, assumed = _questions(config, per_task)
    if shape.tokenizer is None:
        assumed.append("tokens of text are estimated: no tokenizer lies beside config.json")
    prompts = [prompt_shape(shape, question) for question in questions]
    longest = max(prompts, key=len_of)
    # 4.
    found = [_foreseen(replace(config, experiments=(each,)), shape, prompts, machine) for each in config.experiments]
    wide = n_parameters(shape)
    return RunForeseen(
        model=str(asked["name"]),
        n_parameters=wide,
        dtype=str(shape.cfg.dtype).removeprefix("torch."),
        device=str(device),
        weight_bytes=weights,
        bytes_by_dtype={name: size * wide for name, size in _SIZES.items()},
        device_bytes=memory,
        budget=max(0, (memory - weights) // 2),
        n_questions=n_questions,
        n_pos=len_of(longest),
        n_video=len(longest.tokens["video"]),
        assumed=tuple(assumed),
        experiments=tuple(found),
    )


def len_of(prompt: Prompt) -> int:
    """Positions of a prompt."""
    return prompt.shape[1]


def _device(named: str, memory: int | None) -> tuple[torch.device, int]:
    """Where it will run, and the memory there: step 2."""
    try:
        device = torch.device(named)
        # without a number: all that is free here
        return device, 2 * memory_budget(None, device) if memory is None else memory_budget(memory, device)
    except (RuntimeError, AssertionError) as error:
        raise VideolensError(
            f"the device {named!r} is not here, so its memory is not known ({error}): give it with --device-memory, "
            "such as 24G"
        ) from error


def _questions(config: RunConfig, per_task: int) -> tuple[list[Question], int | None, list[str]]:
    """Step 3: some questions, how many there are, and what was assumed."""
    try:
        every = questions_of(config)
    except VideolensError as error:
        n_frames = config.dataset.get("n_frames") or 8
        video = Video.from_array(torch.zeros(n_frames, _SIDE, _SIDE, 3, dtype=torch.uint8))
        stem = "What does the person do after opening the door and before sitting down at the table?"
        options = [f"takes the {thing} from the shelf" for thing in ("book", "cup", "bag", "phone")]
        assumed = Question(video, stem, options, answer=options[0])
        said = f"the data set cannot be read ({error}); assumed is a question of 16 words with four options of five"
        return [assumed], None, [f"{said}, {n_frames} frames"]
    some: dict[str, list[Question]] = {}
    for question in every:
        some.setdefault(question.task, []).append(question)
    return [each for of_task in some.values() for each in of_task[:per_task]], len(every), []


def _foreseen(
    config: RunConfig, shape: HookedVideoTransformer, prompts: Sequence[Prompt], machine: Machine
) -> ExperimentForeseen:
    """Step 4, of the one experiment of a config. Where no tokenizer lies beside config.json, what keeps it from being
    made is told, for its words may be lacking; else it is the error that a run would give."""
    [label] = (each.label for each in config.experiments)
    try:
        [experiment] = experiments_of(config, shape).values()
    except VideolensError as error:
        if shape.tokenizer is not None:
            raise
        return ExperimentForeseen(label, None, f"not made from config.json alone: {error.__cause__}")
    try:
        found = [experiment.foresee(prompt, machine) for prompt in prompts]
    except VideolensError as error:
        return ExperimentForeseen(label, None, str(error), fits=False)
    known = [each for each in found if each is not None]
    return ExperimentForeseen(label, max(known, key=lambda each: each.forwards) if known else None)


def _columns(known: Sequence[Foreseen]) -> tuple[list[float], list[float]]:
    return [each.forwards for each in known], [each.full_forwards for each in known]


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 // 10 else f"{n / 2**20:.1f} MiB"


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"
