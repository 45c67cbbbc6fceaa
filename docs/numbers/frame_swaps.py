"""What a swap of frames changes, by place and layer: the runs behind docs/predictions.md, asked once and kept.

    python docs/numbers/frame_swaps.py [OUT] [N]     # N questions of each task (100), OUT: out/numbers/predictions

Ten questions of each task at a time, of every model in turn: stopped at any moment, it goes on where it was.

Pairs are a test clip and the same clip backwards (frames 0 and 7, 1 and 6, … change places), with a seed that no other
page uses. Each patch goes into the clean run, at what enters one layer. Units:

    video       video tokens of the backwards run
    order       video tokens of the clean run itself, frames backwards: the order of the frames changes, no token does
    carried     video tokens of the backwards run, frames back in order: what tokens carry changes, their order does not
    question …  tokens after the video, of the backwards run
    straight    video of the backwards run, all else but the last token held as in the clean run: one number
    asked half, other half   order within frames 0–3 or 4–7 alone, in action sequence
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

import videolens as vl
from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS
from videolens.experiments.patch_map.contrast import contrast_of
from videolens.experiments.patch_map.pair import measure

SEED = 14  # of the data set: held-out pairs
BLOCK = 10
BACKWARDS = range(7, -1, -1)
LETTERED = tuple(task for task in TEMPORAL_TASKS if task != "object count")  # what "shapes-nohint" answers as letters
SOME = {"random": (5, 6, 9), "asked half": (1, 4, 6), "other half": (1, 4, 6)}  # the layers that are asked for
PATHWAY = vl.Pathway(12, range(6), range(8), [2, 3, 4, 5, 8, 9, 10, 11])  # chosen on validation: docs/pathways.md


@dataclass(frozen=True)
class Asking:
    """One model, asked `most` questions of each task. `units`: "all", "order", or "pathway": video, within it."""

    model: str
    tasks: tuple[str, ...]
    most: int
    words: bool = False
    units: str = "all"


ASKED = {
    "shapes": Asking("shapes", TEMPORAL_TASKS, 100),
    "shapes-nohint": Asking("shapes-nohint", LETTERED, 100),
    "shapes-image": Asking("shapes-image", TEMPORAL_TASKS, 100, units="order"),
    "shapes, still clips": Asking("shapes", STILL_TASKS, 20, units="order"),
    "shapes, pathway": Asking("shapes", TEMPORAL_TASKS, 20, units="pathway"),
    "shapes in words": Asking("shapes", TEMPORAL_TASKS, 100, words=True),
    "shapes-nohint in words": Asking("shapes-nohint", TEMPORAL_TASKS, 100, words=True),
}


class Row(NamedTuple):
    """One patch of one pair.

    Attributes:
        pair, task: whose.
        right: whether the clip and the clip backwards are both answered rightly with nothing patched.
        unit, layer: what is patched, at what enters which layer, counted from 1. "random": the seed of what is cut.
        effect: on the logit difference of the two clips' answers. 0: as the clean run, 1: as the backwards run; NaN
            where those have one answer, or do not differ.
        points: change of the probability of the clip's answer, in points.
        kept: whether the option chosen is that of the clean run.
    """

    pair: str
    task: str
    right: bool
    unit: str
    layer: int
    effect: float
    points: float
    kept: bool


def main(out: Path, n: int = 100) -> None:
    """Ask what has not been asked yet."""
    for first in range(0, n, BLOCK):
        for name, asking in ASKED.items():
            path = out / name / f"{first:03}.parquet"
            if first < asking.most and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                table = pd.DataFrame(rows(asking, first), columns=list(Row._fields))
                table.to_parquet(part := path.with_suffix(".part"))
                part.rename(path)
                right = table.groupby(["task", "pair"])["right"].first()
                print(
                    f"{name}, from question {first} on: {len(right)} pairs, {right.sum()} right both ways", flush=True
                )


def rows(asking: Asking, first: int) -> Iterator[Row]:
    """Everything that is asked about a block of questions of each task."""
    model = vl.HookedVideoTransformer.from_pretrained(asking.model)
    for task in asking.tasks:
        questions = vl.load_dataset("shapes", split="test", task=task, n=first + BLOCK, seed=SEED)[first:]
        for question in questions:
            yield from of_pair(model, question.open_ended() if asking.words else question, asking.units)


@torch.no_grad()
def of_pair(model: vl.HookedVideoTransformer, question: vl.Question, which: str = "all") -> Iterator[Row]:
    """Every patch of one clip and the clip backwards."""
    clean, backwards = model.prompt(question), model.prompt(question.reversed())
    within = [PATHWAY] if which == "pathway" else []
    own, source = (record(model, prompt, within) for prompt in (clean, backwards))
    patches = list(patches_of(clean, own.run, source.run, which))
    found = vl.sweep(model, clean, [each if isinstance(each, list) else [each, *within] for *_, each in patches])
    base = own.logits if within else found.base
    right = is_right(own.logits, clean) and is_right(source.logits, backwards)
    contrast = contrast_of(model, clean, backwards, None)
    numbers, _ = measure(model, contrast, base, source.logits, found.logits, "noise")
    probability = float(contrast.probability(base[None])[0])
    differ = clean.answer_token != backwards.answer_token
    for (unit, layer, _), values, logits in zip(patches, numbers, found.logits, strict=True):
        kept = chosen(logits, clean) == chosen(base, clean)
        effect = values[3] if differ else float("nan")
        yield Row(question.id, question.task, right, unit, layer, effect, 100 * (values[1] - probability), kept)
    if within:
        yield from at_random(model, clean, backwards)


def at_random(model: vl.HookedVideoTransformer, clean: vl.Prompt, backwards: vl.Prompt) -> Iterator[Row]:
    """Beside the pathway: as many live edges, drawn three times; `right` under each, nothing patched."""
    cuts = [vl.RandomBlocking(PATHWAY, seed=seed) for seed in range(3)]
    both = [vl.sweep(model, prompt, cuts).logits for prompt in (clean, backwards)]
    asked = clean.question
    for seed, (here, there) in enumerate(zip(*both, strict=True)):
        right = is_right(here, clean) and is_right(there, backwards)
        yield Row(asked.id, asked.task, right, "random", seed, float("nan"), float("nan"), right)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A run, what entered its layers, and its last logits [d_vocab]."""

    run: vl.SourceRun
    logits: Tensor


def record(model: vl.HookedVideoTransformer, prompt: vl.Prompt, within: list[Any]) -> Recorded:
    """Run a prompt under interventions, and keep the residual stream."""
    with model.hooks(fwd_hooks=[hook for each in within for hook in each.hooks(prompt)]):
        logits, cache = model.run_with_cache(prompt, names_filter=lambda name: name.endswith("hook_resid_pre"))
    return Recorded(vl.SourceRun(prompt, cache), logits[0, -1])


def chosen(logits: Tensor, prompt: vl.Prompt) -> int:
    """Token of the option that is ranked first among the options."""
    return max(prompt.option_tokens, key=lambda token: float(logits[token]))


def is_right(logits: Tensor, prompt: vl.Prompt) -> bool:
    """Whether the option that is chosen is the right one."""
    return chosen(logits, prompt) == prompt.answer_token


def patches_of(
    prompt: vl.Prompt, own: vl.SourceRun, source: vl.SourceRun, which: str
) -> Iterator[tuple[str, int, Any]]:
    """(unit, layer from 1, patch), in the order of the units."""
    n_layers, tokens = len(own.activations), prompt.tokens
    turned = own.reordered(BACKWARDS)
    units: dict[str, tuple[vl.SourceRun, Any]] = {"order": (turned, "video")}
    if which == "pathway":
        units = {"video": (source, "video")}
    if which == "all":
        units |= {"video": (source, "video"), "carried": (source.reordered(BACKWARDS), "video")}
        units |= {name: (source, at) for name, at in after_the_video(prompt).items()}
        units |= halves(prompt, own)
    for unit, (run, at) in units.items():
        for layer in SOME.get(unit, range(1, n_layers + 1)):
            if layer <= n_layers:
                yield unit, layer, vl.Patch("resid_pre", layer - 1, at, source=run)
    if which == "all":
        between = range(int(tokens["video"][-1]) + 1, tokens.n_pos - 1)
        held = vl.Patch("resid_pre", range(1, n_layers), between, source=own)
        yield "straight", 1, [vl.Patch("resid_pre", 0, "video", source=source), held]


def after_the_video(prompt: vl.Prompt) -> dict[str, Any]:
    """Positions after the video by what they are, and as many as the question has, drawn from all others."""
    tokens, question = prompt.tokens, prompt.question
    first, last = int(tokens["video"][0]), int(tokens["last"][0])
    asked = set(tokens["question"].tolist())
    between = [at for at in range(int(tokens["video"][-1]) + 1, last) if at not in asked]
    others = [at for at in range(first, last) if at not in asked]
    drawn = sorted(random.Random(f"{question.task} {question.id}").sample(others, len(asked)))
    units: dict[str, Any] = {"question": "question", "between": between, "last": "last", "random": drawn}
    if not question.options:
        return units
    units |= {"stem": "stem", "options": "options"}
    changed = {question.answer, question.reversed_answer}
    named = [f"option {'ABCD'[i]}" for i, option in enumerate(question.options) if option in changed]
    rest = [f"option {'ABCD'[i]}" for i, option in enumerate(question.options) if option not in changed]
    return units | ({"changed options": " | ".join(named), "same options": " | ".join(rest)} if rest else {})


def halves(prompt: vl.Prompt, own: vl.SourceRun) -> dict[str, tuple[vl.SourceRun, Any]]:
    """Of action sequence: the order within the half that is asked about, and within the other one."""
    if prompt.question.task != "action sequence":
        return {}
    early, late = own.reordered([3, 2, 1, 0, 4, 5, 6, 7]), own.reordered([0, 1, 2, 3, 7, 6, 5, 4])
    asked, other = (early, late) if prompt.question.stem.endswith("first?") else (late, early)
    return {"asked half": (asked, "video"), "other half": (other, "video")}


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("out/numbers/predictions", "100")[len(sys.argv) - 1 :]]
    main(Path(arguments[0]), int(arguments[1]))
