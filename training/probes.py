"""When, and where, can direction be read? Probes on the video tokens at the checkpoints that a training run kept.

```bash
python -m training.probes runs/qwen --n 100 --only 138 554 1077 1538 2615 --out out/probes.csv
```

Validation clips of *moving direction*; linear probes (`vl.probe`) on the mean over the video's tokens, judged on clips
that they were not fitted on, beside probes for labels given by chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import videolens as vl
from training.emergence import kept

TASK, SITE = "moving direction", "video"


def measured(model: vl.HookedVideoTransformer, questions: Sequence[vl.Question], step: int) -> list[dict[str, object]]:
    """One row for what enters the decoder (layer −1) and what leaves each 0-based layer."""
    probes = vl.probe(model, questions, {"direction": "answer"}, [SITE], progress=False)
    rows: list[dict[str, object]] = []
    for layer in range(-1, model.cfg.n_layers):
        right = probes.accuracy("direction", SITE, layer)
        control = probes.control("direction", SITE, layer)
        rows.append(
            {"step": step, "layer": layer} | right.columns("right") | control.columns("control") | {"n": right.n}
        )
    return rows


def main() -> None:
    """Measure the chosen checkpoints, and print percent by step and layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what training was given as --out, or a bundled model")
    parser.add_argument("--stage", default="shown")
    parser.add_argument("--n", type=int, default=100, help="clips")
    parser.add_argument("--only", type=int, nargs="*", help="steps of the checkpoints; else all")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--seed", type=int, default=7, help="of the questions")
    parser.add_argument("--out", type=Path, default=Path("out/probes.csv"))
    args = parser.parse_args()
    questions = vl.load_dataset("shapes", split=args.split, task=TASK, n=args.n, seed=args.seed)
    rows: list[dict[str, object]] = []
    for step, folder in kept(args.run, args.stage):
        if args.only is None or step in args.only:
            rows += measured(vl.HookedVideoTransformer.from_pretrained(str(folder)), questions, step)
    table = pd.DataFrame(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    for name in ("right", "control"):
        print(name)
        print((100 * table.pivot(index="step", columns="layer", values=name)).round(0).astype(int).to_string())


if __name__ == "__main__":
    main()
