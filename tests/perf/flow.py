"""What a flow map costs, exact against full: `python tests/perf/flow.py [a b c] [--quick] [--threads 2]`.

a  the bundled model on one of its questions
b  random weights at the paper's layout, 32 layers, and plain forwards beside the original's
c  memory at 64 frames, against one plain forward and against what was planned

The full side is the published procedure: one forward of the whole prompt under hook functions for each route and
window. It is timed on pairs drawn at random, at least one of every route, and scaled to all of them and the unblocked
one. Both sides read out the last row only; the vision tower has run before, on both sides. Everything is repeated, full
and exact in turn in one process, and medians are printed. On a GPU: `--device cuda --shape 7b`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 1, 2)]

import perf_memory
import torch
from helpers.engine import LargestFloat
from perf_compare import Comparison, Rounds, knockouts_of
from perf_models import Shape, original_logits, random_original, random_prompt
from perf_timing import interleaved, machine, table

import videolens as vl
from videolens.engine import sweep
from videolens.engine.full import full_logits
from videolens.prompt.prompt import Prompt

TEXT_ROUTES = vl.ROUTES[1:]  # all but cross-frame
SHAPES = {
    "b": Shape(n_layers=32, d_model=512, n_heads=8, d_mlp=1376),
    "c": Shape(n_layers=16, d_model=256, n_heads=4, d_mlp=688, frames=64),
    "7b": Shape(n_layers=32, d_model=4096, n_heads=32, d_mlp=11008),
}
_SMALL = dict(d_vocab=512, before=12, stem=6, option=3, suffix=4)
QUICK = {
    "b": Shape(n_layers=4, d_model=64, n_heads=2, d_mlp=172, frames=4, side=4, **_SMALL),
    "c": Shape(n_layers=3, d_model=64, n_heads=2, d_mlp=172, frames=32, side=4, **_SMALL),
}


def bundled(options: argparse.Namespace) -> dict[str, Any]:
    """(a) The bundled model; here every pair is timed."""
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    prompt = model.prompt(vl.load_dataset("shapes", split="test", task="object count", n=1)[0])
    pairs = options.pairs if options.quick else len(vl.ROUTES) * model.cfg.n_layers
    rounds = Rounds(model, prompt, argparse.Namespace(**{**vars(options), "pairs": pairs}))
    return _compared(f"(a) bundled model: L = {model.cfg.n_layers}, {prompt.shape[1]} tokens", rounds)


def random_weights(options: argparse.Namespace) -> dict[str, Any]:
    """(b) Random weights, and plain forwards beside the original's."""
    shape = QUICK["b"] if options.quick else SHAPES[options.shape]
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    original = random_original(shape, device=options.device, dtype=dtype, seed=options.seed)
    model = vl.HookedVideoTransformer.from_hugging_face(original)
    prompt = random_prompt(model, shape, seed=options.seed)
    figures = _plain(original, model, prompt, options)
    figures |= _compared(f"(b) random weights, {str(dtype)[6:]}: {shape}", Rounds(model, prompt, options))
    return figures if options.device == "cpu" else figures | _device_memory(model, prompt, options)


def _device_memory(model: vl.HookedVideoTransformer, prompt: Prompt, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of the device during a sweep of all routes, above what is held before it."""
    many = knockouts_of(model, prompt, vl.ROUTES)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    planned = sweep(model, prompt, many, max_memory=options.max_memory).plan.peak_bytes
    measured = torch.cuda.max_memory_allocated() - before
    print(f"\nmemory of a sweep: {measured / 2**20:,.0f} MiB measured, {planned / 2**20:,.0f} MiB planned")
    return {"planned over measured": planned / measured}


def _compared(title: str, rounds: Rounds) -> dict[str, Any]:
    found = rounds.compare(vl.ROUTES, TEXT_ROUTES)
    print(table(title, Comparison.HEAD, [each.row for each in found]))
    return {f"{each.routes} routes": dict(zip(Comparison.HEAD, each.row, strict=True)) for each in found}


def _plain(
    original: Any, model: vl.HookedVideoTransformer, prompt: Prompt, options: argparse.Namespace
) -> dict[str, Any]:
    """One forward each: the original's with SDPA, ours, ours under one knockout; last-row logits."""
    runs = {"Hugging Face": lambda: original_logits(original, prompt), "ours": lambda: full_logits(model, prompt, ())}
    for route in ("cross-frame", "video -> question", "question -> last"):
        cut = knockouts_of(model, prompt, [route])[model.cfg.n_layers // 2]
        runs[f"ours, {route} cut"] = lambda cut=cut: full_logits(model, prompt, cut.hooks(prompt))
    times = interleaved(runs, 1 if options.quick else max(5, options.rounds))
    ratio = {name: took / times["Hugging Face"] for name, took in times.items()}
    apart = float((runs["ours"]() - runs["Hugging Face"]()).abs().max() / runs["Hugging Face"]().std())
    rows = [(name, took, ratio[name]) for name, took in times.items()]
    print(table("one plain forward, medians", ("forward", "s", "over Hugging Face"), rows))
    print(f"\nours and Hugging Face's differ by at most {apart:.1e} std")
    return {"plain forward": ratio, "to Hugging Face, std": apart}


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """(c) Peak anonymous memory, each in a process of its own, and the largest tensors of a smaller copy."""
    shape = (QUICK if options.quick else SHAPES)["c"]
    whats = ("Hugging Face", "forward", "sweep")[options.quick :]
    arguments = ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    arguments += [] if options.max_memory is None else ["--max-memory", str(options.max_memory)]
    found = dict(zip(whats, perf_memory.in_processes(__file__, whats, arguments), strict=True))
    base, planned = found["forward"]["peak"], found["sweep"]["planned"]
    figures = {
        "over one forward": found["sweep"]["peak"] / base,
        "planned over measured": planned / found["sweep"]["peak"],
        "n × n floats": len(_squares(options)),
    }
    rows = [(what, each["peak"] / 2**20, each["peak"] / base) for what, each in found.items()]
    rows.append(("sweep, as planned", planned / 2**20, planned / base))
    print(table(f"(c) memory above the loaded model: {shape}", ("what", "MiB", "over one plain forward"), rows))
    print(
        f"\nplanned over measured: {figures['planned over measured']:.2f}; n × n float tensors in a smaller copy: ",
        end="",
    )
    print(figures["n × n floats"])
    return figures


def measure(what: str, options: argparse.Namespace) -> dict[str, int]:
    """Peak bytes of one forward or of a whole sweep above the loaded model; a short prompt has warmed up before."""
    shape = (QUICK if options.quick else SHAPES)["c"]
    original = random_original(shape, seed=options.seed)
    model = vl.HookedVideoTransformer.from_hugging_face(original)

    def run(prompt: Prompt) -> None:
        if what == "forward":
            full_logits(model, prompt, ())
        elif what == "Hugging Face":
            original_logits(original, prompt)
        else:
            sweep(model, prompt, knockouts_of(model, prompt, vl.ROUTES), max_memory=options.max_memory)

    run(random_prompt(model, replace(shape, frames=2)))
    prompt = random_prompt(model, shape)
    planned = vl.plan_flow(model, prompt, max_memory=options.max_memory).peak_bytes
    return {"peak": perf_memory.peak_bytes(lambda: run(prompt)), "planned": planned}


def _squares(options: argparse.Namespace) -> list[tuple[int, ...]]:
    """Shapes of float tensors of a sweep with two neighbouring sides of a quarter of the prompt or more.

    The model is narrow, so that no width of its own is as large as that.
    """
    shape = Shape(n_layers=3, d_model=32, n_heads=2, d_mlp=48, d_vocab=64, frames=32, side=4, before=20)
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(shape, seed=options.seed))
    prompt = random_prompt(model, shape)
    with LargestFloat() as seen:
        sweep(model, prompt, knockouts_of(model, prompt, vl.ROUTES))
    return seen.squares(shape.n_pos // 4)


PARTS = {"a": bundled, "b": random_weights, "c": memory}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the parts that are asked for; all their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="a|b|c", help="what to run; without any: all")
    parser.add_argument("--quick", action="store_true", help="everything small and once: does it run at all?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", default="b", choices=["b", "7b"], help="of part b")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of this many")
    parser.add_argument("--pairs", type=int, default=12, help="(route, window) pairs timed in full, each round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-memory", type=int, default=None, help="bytes for the exact engine; without: its default")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here as well")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from a, b, c")
    if options.quick:
        options.rounds = 1
    torch.set_num_threads(options.threads)
    if options.measure is not None:
        perf_memory.measure_each(options.measure, lambda what: measure(what, options))
        return {}
    print(machine(options.device))
    figures = {part: PARTS[part](options) for part in options.parts or PARTS}
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return figures


if __name__ == "__main__":
    main()
