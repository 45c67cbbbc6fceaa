"""Claims 4 and 5 of a model that was trained without hints (docs/paper.md, "Models and claims").

    python docs/numbers/claims_4_5.py        # of shapes-nohint; shapes, to compare, if it is named

In the tasks that a model answers as letters (at least 80 % of 40 validation questions). Claim 4: the layer that raises
the right option's probability at the last token most, over 25 test questions of each task; and that probability when
video -> question is cut from that layer on, and before it. Claim 5: a closed pathway, chosen on 50 validation questions
of each task, asked of 100 test questions of each, beside random cuts with as many live edges. Layers count from 1.
"""

from __future__ import annotations

import sys

import videolens as vl
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS

KNOWN = 0.8


def questions(split: str, tasks: list[str], n: int) -> list[vl.Question]:
    """The first `n` questions of each task."""
    return list(vl.load_dataset("shapes", split=split, tasks=tasks, n=n))


def known_tasks(model: vl.HookedVideoTransformer) -> list[str]:
    """The temporal tasks that the model answers as letters."""
    asked = questions("validation", list(TEMPORAL_TASKS), 40)
    found = vl.measure_accuracy(model, asked, name="model", progress=False)
    shares = {task: found.share("model", task, "as is") for task in TEMPORAL_TASKS}
    for task, share in shares.items():
        print(f"  validation, {task}: {share}")
    return [task for task, share in shares.items() if share.value >= KNOWN]


def claim_4(model: vl.HookedVideoTransformer, tasks: list[str]) -> None:
    """Where the right option rises, and what a cut from there on, and before, leaves of it."""
    asked = questions("test", tasks, 25)
    rise = vl.answer_trace(model, asked, progress=False).rise()
    at = int(rise.layer.value)
    cuts = {
        "cut from there on": vl.Knockout.route("video -> question", layers=range(at, model.cfg.n_layers)),
        "cut before": vl.Knockout.route("video -> question", layers=range(at)),
    }
    trace = vl.answer_trace(model, asked, interventions=cuts, progress=False)
    print(f"  claim 4: rises most in layer {at + 1} (from 0: {rise.layer}), by {rise.amount}")
    for condition in ("clean", *cuts):
        curve = trace.curve(condition=condition)
        shown = " ".join(f"{100 * value:.0f}" for value in curve.mean)
        ends = f"[{100 * curve.low[-1]:.1f}, {100 * curve.high[-1]:.1f}]"
        print(f"  claim 4: right option after each layer, {condition}: {shown} % {ends}")


def claim_5(model: vl.HookedVideoTransformer, tasks: list[str]) -> None:
    """What a pathway keeps of the accuracy on questions that it was not chosen on."""
    choice = vl.choose_pathway(model, questions("validation", tasks, 50), progress=False)
    found = vl.evaluate_pathway(
        model, questions("test", tasks, 100), choice.pathway, random=("live edges",), progress=False
    )
    for row in found.summary().query("task == 'all'").itertuples():
        loss = f"{row.loss_points:.1f} [{row.loss_points_low:.1f}, {row.loss_points_high:.1f}]"
        print(
            f"  claim 5: {row.condition}: n {row.n}, live edges {100 * row.live_edges_kept:.1f} %, right "
            f"{100 * row.accuracy:.1f} %, loss {loss}"
        )


def main(names: list[str]) -> None:
    """Each model in turn."""
    for name in names:
        model = vl.HookedVideoTransformer.from_pretrained(name)
        print(name, flush=True)
        tasks = known_tasks(model)
        claim_4(model, tasks)
        claim_5(model, tasks)


if __name__ == "__main__":
    main(sys.argv[1:] or ["shapes-nohint"])
