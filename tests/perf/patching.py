"""What a patch map costs: every frame in every layer, exact against plain hooked forwards, side by side in one process.

`python tests/perf/patching.py [--quick] [--threads 2]`: the bundled model, a clip and its reversal, residual patched.
Plain: one `run_with_hooks` of the whole prompt for each layer and frame. Both sides begin from the same source run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 2)]

import torch
from perf_timing import interleaved, machine, table
from torch import Tensor

import videolens as vl
from videolens.engine import sweep


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run and print; the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers, once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="medians are of this many")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    question = vl.load_dataset("shapes", split="test", task="moving direction", n=1)[0]
    clean, corrupted = model.prompt(question), model.prompt(question.reversed())
    source = vl.SourceRun.record(model, clean, "resid_pre")
    layers = range(2) if options.quick else range(model.cfg.n_layers)
    patches = [
        vl.Patch("resid_pre", layers=layer, positions=f"frame {frame}", source=source)
        for layer in layers
        for frame in range(clean.tokens.grid[0])
    ]

    def plain() -> Tensor:
        with torch.no_grad():
            return torch.stack([model.run_with_hooks(corrupted, fwd_hooks=p.hooks(corrupted))[0, -1] for p in patches])

    def exact() -> Tensor:
        return sweep(model, corrupted, patches).logits

    times = interleaved({"plain": plain, "exact": exact}, 1 if options.quick else options.rounds)
    expected, found = plain(), exact()
    scale = expected.std()
    figures = {
        "patches": len(patches),
        "plain, s": times["plain"],
        "exact, s": times["exact"],
        "exact / plain": times["exact"] / times["plain"],
        "forwards": sweep(model, corrupted, patches).plan.forwards,
        "max Δlogit, std": float((found - expected).abs().max() / scale),
        "patches move logits, std": float((expected - model(corrupted)[0, -1]).abs().amax(-1).median() / scale),
    }
    print(machine("cpu"))
    title = f"residual patched: {len(layers)} layers × {clean.tokens.grid[0]} frames, {clean.shape[1]} tokens"
    print(table(title, list(figures), [list(figures.values())]))
    return figures


if __name__ == "__main__":
    main()
