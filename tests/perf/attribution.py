"""What an attribution costs: `python tests/perf/attribution.py [time memory] [--quick] [--threads 2]`.

time    scores of all units by every method, against closing each unit exactly with the engine; random weights at the
        paper's layout. Exact knockouts of every (layer, route) are timed whole; those of finer units on some drawn at
        random, and scaled to all.
memory  at 8 × 144 and at 32 × 144 video tokens, above the loaded model, each in a process of its own, against one plain
        forward; and how many n × n float tensors a smaller copy makes.

Times are medians of rounds in turn, in one process.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 1, 2)]

import perf_memory
import torch
from helpers.engine import LargestFloat
from perf_models import Shape, random_original, random_prompt
from perf_timing import interleaved, machine, table

import videolens as vl
from videolens.engine import last_logits, sweep
from videolens.engine.full import full_logits
from videolens.experiments.attribution.metrics import metric_of
from videolens.experiments.attribution.scores import METHODS, unit_scores
from videolens.interventions.partition import Partition
from videolens.prompt.prompt import Prompt

SHAPES = {
    "time": Shape(n_layers=8, d_model=256, n_heads=4, d_mlp=688, d_vocab=4096),
    "memory, 8 frames": Shape(n_layers=4, d_model=256, n_heads=4, d_mlp=688, d_vocab=4096),
    "memory, 32 frames": Shape(n_layers=4, d_model=256, n_heads=4, d_mlp=688, d_vocab=4096, frames=32),
}
_SMALL = dict(d_vocab=512, before=12, stem=6, option=3, suffix=4)
QUICK = {
    "time": Shape(n_layers=3, d_model=64, n_heads=2, d_mlp=172, frames=3, side=2, **_SMALL),
    "memory, 8 frames": Shape(n_layers=2, d_model=64, n_heads=2, d_mlp=172, frames=3, side=3, **_SMALL),
    "memory, 32 frames": Shape(n_layers=2, d_model=64, n_heads=2, d_mlp=172, frames=6, side=3, **_SMALL),
}
UNITS: dict[str, dict[str, Any]] = {
    "routes": {"grain": "routes", "heads": False},
    "heads": {"grain": "routes", "heads": True},
    "heads, frame pairs": {"grain": "frame pairs", "heads": True},
}


def score(model: vl.HookedVideoTransformer, prompt: Prompt, method: str, grain: str, heads: bool) -> torch.Tensor:
    """All scores of one prompt, without any exact knockouts."""
    metric = metric_of("logit difference", prompt, last_logits(model, prompt), "random")
    partition = Partition.of(prompt.tokens, grain)
    return unit_scores(model, prompt, partition, metric, method=method, heads=heads, steps=5)


def times(options: argparse.Namespace) -> dict[str, Any]:
    """Scores against exact knockouts, side by side."""
    shape = (QUICK if options.quick else SHAPES)["time"]
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(shape, seed=options.seed))
    prompt = random_prompt(model, shape, seed=options.seed)
    forward = {"one plain forward": lambda: full_logits(model, prompt, ())}
    rows, figures = [], {}
    for name, kind in UNITS.items():
        partition = Partition.of(prompt.tokens, kind["grain"])
        units = partition.units(shape.n_layers, shape.n_heads if kind["heads"] else None)
        drawn = units if not kind["heads"] else random.Random(0).sample(units, min(options.units, len(units)))
        cuts = [unit.knockout for unit in drawn]
        runs = {"exact": lambda cuts=cuts: sweep(model, prompt, cuts)}
        runs |= {method: lambda method=method, kind=kind: score(model, prompt, method, **kind) for method in METHODS}
        took = interleaved(forward | runs, options.rounds)
        took["exact"] *= len(units) / len(drawn)
        ratios = {what: took["exact"] / took[what] for what in METHODS}
        figures[name] = ratios
        forwards = [took[what] / took["one plain forward"] for what in ("exact", *METHODS)]
        rows.append((name, len(units), took["exact"], *(took[what] for what in METHODS), *forwards, *ratios.values()))
    head = ["units", "number", "exact, s", *(f"{each}, s" for each in METHODS)]
    head += [f"{each}, forwards" for each in ("exact", *METHODS)] + [f"exact over {each}" for each in METHODS]
    print(table(f"time: {shape}", head, rows))
    return figures


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of scores, each in a process of its own, over that of a plain forward."""
    figures: dict[str, Any] = {}
    rows = []
    runs = ["forward", *(f"layer / {name}" for name in UNITS), "local / heads, frame pairs", "integrated / routes"]
    arguments = ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    sizes = ("8 frames", "32 frames")
    measured = perf_memory.in_processes(__file__, [f"{size} / {what}" for size in sizes for what in runs], arguments)
    for i, size in enumerate(sizes):
        found = measured[i * len(runs) : (i + 1) * len(runs)]
        peaks = {what: each["peak"] for what, each in zip(runs, found, strict=True)}
        figures[size] = {what: peak / peaks["forward"] for what, peak in peaks.items()}
        rows += [(size, what, peak / 2**20, peak / peaks["forward"]) for what, peak in peaks.items()]
    shape = (QUICK if options.quick else SHAPES)["memory, 32 frames"]
    print(table(f"memory above the loaded model: {shape}", ("video", "what", "MiB", "over one forward"), rows))
    figures["n × n floats"] = len(_squares(options))
    print(f"\nn × n float tensors in a smaller copy: {figures['n × n floats']}")
    return figures


def measure(what: str, options: argparse.Namespace) -> dict[str, int]:
    """Peak bytes of one call above the loaded model; a short prompt has warmed up before."""
    size, _, rest = what.partition(" / ")
    method, _, name = rest.partition(" / ")
    shape = (QUICK if options.quick else SHAPES)[f"memory, {size}"]
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(shape, seed=options.seed))

    def run(prompt: Prompt) -> None:
        full_logits(model, prompt, ()) if method == "forward" else score(model, prompt, method, **UNITS[name])

    run(random_prompt(model, replace(shape, frames=2)))
    prompt = random_prompt(model, shape)
    return {"peak": perf_memory.peak_bytes(lambda: run(prompt))}


def _squares(options: argparse.Namespace) -> list[tuple[int, ...]]:
    """Shapes of float tensors with two neighbouring sides of more than half the prompt.

    The model is narrow, so that no width of its own is as large as that; chunks of rows are as short as they are in a
    model that is not.
    """
    from videolens.experiments.attribution import gating, scores

    shape = Shape(n_layers=2, d_model=32, n_heads=2, d_mlp=48, d_vocab=64, frames=32, side=4, before=20)
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(shape, seed=options.seed))
    prompt = random_prompt(model, shape)
    scores._AT_ONCE = gating._AT_ONCE = 2**16
    with LargestFloat() as seen:
        for method in METHODS:
            score(model, prompt, method, **UNITS["heads, frame pairs"])
    return seen.squares(shape.n_pos // 2)


PARTS = {"time": times, "memory": memory}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the parts that are asked for; all their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="time|memory", help="what to run; without any: both")
    parser.add_argument("--quick", action="store_true", help="everything small and once: does it run at all?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="medians are of this many")
    parser.add_argument("--units", type=int, default=64, help="finer units that are closed exactly to be timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if options.quick:
        options.rounds = 1
    torch.set_num_threads(options.threads)
    if options.measure is not None:
        perf_memory.measure_each(options.measure, lambda what: measure(what, options))
        return {}
    print(machine("cpu"))
    return {part: PARTS[part](options) for part in options.parts or PARTS}


if __name__ == "__main__":
    main()
