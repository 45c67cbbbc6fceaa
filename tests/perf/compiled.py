"""What a compiled pathway saves: `python tests/perf/compiled.py [a b c] [--quick] [--threads 2]`.

a  random weights, 32 layers, the ranges of the paper's 7B model (closed masks)
b  random weights, 40 layers, the ranges of its 13B model
c  the bundled model, under the pathway that choose_pathway finds on validation questions

Four ways run in turn in one process, and medians are printed: the full forward, the same under the pathway's masks, the
compiled pathway, and the compiled pathway whose plan is made anew, as for a prompt of another layout. All read out the
last row only. *Bound*: operations of the full forward over those of the compiled one. With the tower: the prompt is
made each time, as of another question, and features are not remembered; the random tower takes as large a share as
CLIP-L/336 of 8 frames before a 7B decoder. Decoding: 64 tokens less the first, with the bytes of keys and values that
are held at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 2)]

import torch
from perf_models import Shape, random_original, random_prompt
from perf_timing import interleaved, machine, table

import videolens as vl
from videolens.engine.full import full_logits
from videolens.interventions.presets import PRESETS
from videolens.prompt.prompt import Prompt

SHAPES = {
    "a": Shape(n_layers=32, d_model=512, n_heads=8, d_mlp=1376, tower=(256, 5)),
    "b": Shape(n_layers=40, d_model=512, n_heads=8, d_mlp=1376, tower=(256, 6)),
}
RANGES = {"a": "LLaVA-NeXT-7B-Video-FT", "b": "LLaVA-NeXT-13B-Video-FT"}
_SMALL = dict(d_model=64, n_heads=2, d_mlp=172, d_vocab=512, frames=4, side=4, before=12, stem=6, option=3, suffix=4)
NEW = 64
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def pathway_of(part: str) -> vl.Pathway:
    """The ranges of one of the paper's models, under closed masks."""
    return vl.Pathway(**PRESETS[RANGES[part]].ranges(), name=RANGES[part])


def random_weights(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """(a), (b) Random weights at the paper's layout."""
    shape = replace(SHAPES[part], tower=(16, 1), **_SMALL) if options.quick else SHAPES[part]
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(shape, seed=options.seed))

    def made() -> Prompt:
        return random_prompt(model, shape, seed=options.seed)

    return _measured(f"({part}) {RANGES[part]}: {shape}", model, pathway_of(part), made, options)


def bundled(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """(c) The bundled model on a test question."""
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    chosen = vl.choose_pathway(model, vl.load_dataset("shapes", split="validation", n=1 if options.quick else 10))
    [question] = vl.load_dataset("shapes", split="test", task="object count", n=1)
    n_pos = model.prompt(question).shape[1]
    title = f"(c) bundled model: L = {model.cfg.n_layers}, {n_pos} tokens; {chosen.pathway}"
    # its forwards take a hundredth of the others' time
    options = argparse.Namespace(**{**vars(options), "rounds": options.rounds if options.quick else 8 * options.rounds})
    return _measured(title, model, chosen.pathway, lambda: model.prompt(question), options)


def _measured(
    title: str,
    model: vl.HookedVideoTransformer,
    pathway: vl.Pathway,
    made: Callable[[], Prompt],
    options: argparse.Namespace,
) -> dict[str, Any]:
    prompt, fast = made(), model.compile(pathway)
    plan = fast.plan(prompt, NEW)
    print(f"\n{title}\n{plan}", flush=True)
    figures = _forwards(model, pathway, made, options)
    bound = fast.plan(prompt).bound
    figures |= {"bound": bound, "share of bound, %": 100 * figures["ratio"] / bound}
    figures |= {} if options.prefill else _decoding(model, pathway, prompt, options)
    figures |= {
        "cache, MiB": plan.cache_bytes() / 2**20,
        "full cache, MiB": plan.full_cache_bytes() / 2**20,
        "full cache over it": plan.full_cache_bytes() / plan.cache_bytes(),
    }
    print(table(title, ("figure", "value"), list(figures.items())))
    return figures


def _forwards(
    model: vl.HookedVideoTransformer,
    pathway: vl.Pathway,
    made: Callable[[], Prompt],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Prefill, without and with the tower."""
    prompt, fast = made(), model.compile(pathway)

    def anew(run: Callable[[Prompt], Any]) -> Callable[[], Any]:
        def with_tower() -> Any:
            model.frontend.memory.clear()
            return run(made())

        return with_tower

    runs: dict[str, Callable[[], Any]] = {
        "full": lambda: full_logits(model, prompt, ()),
        "masked": lambda: full_logits(model, prompt, pathway.hooks(prompt)),
        "compiled": lambda: fast(prompt),
        "planned anew": lambda: model.compile(pathway)(prompt),
    }
    if not options.prefill:
        runs |= {
            "tower, full": anew(lambda given: full_logits(model, given, ())),
            "tower, compiled": anew(fast),
        }
    times = interleaved(runs, options.rounds, CLOCKS[options.clock])
    under_masks = runs["masked"]()
    print(table(f"seconds ({options.clock}), medians", list(times), [list(times.values())]), flush=True)
    found = {
        "ratio": times["full"] / times["compiled"],
        "ratio, planned anew": times["full"] / times["planned anew"],
        "ratio to masked": times["masked"] / times["compiled"],
        "to masked, std": float((fast(prompt)[0, -1] - under_masks).abs().max() / under_masks.std()),
    }
    return found if options.prefill else found | {"ratio with tower": times["tower, full"] / times["tower, compiled"]}


def _decoding(
    model: vl.HookedVideoTransformer, pathway: vl.Pathway, prompt: Prompt, options: argparse.Namespace
) -> dict[str, Any]:
    """Time per token after the first, in the same rounds."""
    n_new, fast = 4 if options.quick else NEW, model.compile(pathway)
    ways = {
        "full": lambda n: model.generate(prompt, n, stop_at_eos=False),
        "masked": lambda n: model.generate(prompt, n, pathway, stop_at_eos=False),
        "compiled": lambda n: fast.generate(prompt, n, stop_at_eos=False),
    }
    runs = {f"{name}, {n}": lambda way=way, n=n: way(n) for name, way in ways.items() for n in (1, n_new)}
    times = interleaved(runs, options.rounds, CLOCKS[options.clock])
    each = {name: 1000 * (times[f"{name}, {n_new}"] - times[f"{name}, 1"]) / (n_new - 1) for name in ways}
    print(table("ms per token after the first", list(each), [list(each.values())]))
    same = torch.equal(ways["masked"](n_new).tokens, ways["compiled"](n_new).tokens)
    return {"decoding, over full": each["compiled"] / each["full"], "same tokens as masked": same}


PARTS: dict[str, Callable[[str, argparse.Namespace], dict[str, Any]]] = {
    "a": random_weights,
    "b": random_weights,
    "c": bundled,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the parts that are asked for; all their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="a|b|c", help="what to run; without any: all")
    parser.add_argument("--quick", action="store_true", help="everything small and once: does it run at all?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", default="wall", choices=CLOCKS, help="cpu: of all threads; others on the machine disturb it less"
    )
    parser.add_argument("--prefill", action="store_true", help="leave out the tower and decoding")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of this many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="write the figures here as well")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from a, b, c")
    if options.quick:
        options.rounds = 1
    torch.set_num_threads(options.threads)
    print(machine("cpu"))
    figures = {part: PARTS[part](part, options) for part in options.parts or PARTS}
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return figures


if __name__ == "__main__":
    main()
