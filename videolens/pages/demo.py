"""The demonstration: two models, the same questions, and one page that shows what flows where in each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from videolens.datasets import load_dataset
from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS
from videolens.errors import VideolensError
from videolens.experiments.accuracy.conditions import CONDITIONS
from videolens.experiments.answer_trace.experiment import answer_trace
from videolens.experiments.claims.experiment import NEEDED_STILL, check_claims
from videolens.experiments.common.provenance import versions
from videolens.experiments.common.scoring import option_probabilities
from videolens.experiments.flow.cost import side_by_side
from videolens.experiments.flow.experiment import trace_flow
from videolens.experiments.flow.figure import kinds_of
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.logit_lens.experiment import logit_lens
from videolens.experiments.logit_lens.keywords import SHAPES, known_words
from videolens.experiments.logit_lens.result import LogitLens
from videolens.experiments.logit_lens.section import words_at
from videolens.experiments.pathway.choice import choose_pathway
from videolens.experiments.pathway.experiment import evaluate_pathway
from videolens.experiments.pathway.view import pruning_view
from videolens.experiments.segment_attention.experiment import measure_attention
from videolens.explorer.explore import explore
from videolens.model.checkpoints.files import short_name
from videolens.model.loading import load
from videolens.model.transformer import HookedVideoTransformer
from videolens.pages.clips import AnsweredClip
from videolens.pages.demo_evidence import evidence
from videolens.pages.demo_page import demo_page
from videolens.pages.demo_parts import CHOSEN_BY, COMPARED, EXPLORER, READ, Demo, DemoSettings, Pruned
from videolens.pages.demo_search import smallest
from videolens.pages.saving import describe, save_figure, save_flows
from videolens.pages.shapes_accuracy import shapes_accuracy
from videolens.progress import progress_bar
from videolens.question import Question
from videolens.reading import read_json

PAGE, SETTINGS = "report.html", "demo.json"


def run_demo(
    out: str | Path,
    settings: DemoSettings | None = None,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
    progress: bool = True,
) -> Path:
    """Compute everything, and write tables, figures and the page.

    1. Load both models; take the questions.
    2. Accuracy of both, as is, reversed, shuffled and blank.
    3. Flow maps: the tuned model on what it answers rightly, the base on the same questions, all of them.
    4. Map the base on still clips, too; judge the claims, read the attention between segments, map `COMPARED` questions
       by the published procedure.
    5. Choose a pathway on validation questions, and measure what is left of the tuned model's accuracy along it; search
       for a smaller one on the same, and time both compiled; disturb a few questions along both, and compare a bundled
       model with one that had no hints; trace the answer through the layers, and read the video tokens.
    6. Write `flow.csv`, `flow.parquet`, `accuracy.csv`, `claims.json`, figures (PNG), the results (for their `load`)
       and `report.html`.

    Args:
        out: the directory. What an earlier run with the same settings wrote is written again.
        settings: None: the bundled pair, twenty questions a task.
        device: where both models run; "auto": CUDA or MPS where there is one.
        say: called with a line of text for every step.
        progress: show bars.

    Returns:
        The path of the page.

    Raises:
        VideolensError: the directory holds a demonstration with other settings; or as the steps raise.
    """
    settings = settings if settings is not None else DemoSettings()
    out = Path(out)
    _check_directory(out, settings)
    demo = _compute(settings, device, say=say, progress=progress)
    say("writing tables, figures and the page")
    _write(out, demo, progress=progress)
    return out / PAGE


def _compute(settings: DemoSettings, device: str, *, say: Callable[[str], None], progress: bool) -> Demo:
    """Steps 1 to 5."""
    began = time.monotonic()
    say(f"loading {settings.model} and {settings.base}")
    how: dict[str, Any] = {"device": device, "dtype": settings.dtype, "say": say}
    models = {name: load(name, **how) for name in (settings.model, settings.base)}
    tuned, base = models.values()
    questions = _questions(settings)
    n_accuracy = max(settings.n_accuracy, settings.n)
    say(f"accuracy: {n_accuracy} questions of each task, both models, {len(CONDITIONS)} conditions")
    accuracy = shapes_accuracy(
        {short_name(name): model for name, model in models.items()},
        n=n_accuracy,
        split=settings.split,
        seed=settings.seed,
        tasks=(*TEMPORAL_TASKS, *STILL_TASKS),
        conditions=tuple(CONDITIONS),
        progress=progress,
    )
    say(f"flow map of {settings.model}: {len(questions)} questions, every route, every window of layers")
    flow = trace_flow(tuned, questions, samples="correct", seed=settings.seed, progress=progress)
    say(f"flow map of {settings.base}: the same questions")
    base_flow = trace_flow(base, questions, samples="all", seed=settings.seed, progress=progress)
    say(f"{settings.base} on still clips, judging the claims, reading attention")
    claims = check_claims(flow, base_flow, _still(base, settings, progress=progress))
    attention = (
        measure_attention(tuned, questions, name=short_name(settings.model), progress=progress),
        measure_attention(base, questions, name=short_name(settings.base), progress=progress),
    )
    ones = _one_of_each(questions)
    say(f"{COMPARED} of the questions by the published procedure, to compare")
    check = side_by_side(tuned, ones[:COMPARED], name=short_name(settings.model), progress=progress)
    say(f"a pathway, chosen on {CHOSEN_BY} validation questions of each task, and the accuracy along it")
    by = _validation(settings)
    pruned = _pruned(tuned, by, questions, settings, progress=progress)
    say(f"the smallest pathway, searched for on the same {len(by)} questions, and what running it saves")
    small = smallest(tuned, by, questions, ones, pruned.choice, seed=settings.seed, say=say, progress=progress)
    say("a few questions disturbed, along both pathways; what is there without hints")
    beyond = evidence(settings.model, tuned, small.pathways, questions, seed=settings.seed, progress=progress, **how)
    say("the answer through the layers, the words of the video tokens, and one question to look into")
    trace = answer_trace(tuned, questions, seed=settings.seed, progress=progress)
    lens = _lens(tuned, questions, settings, say=say, progress=progress)
    return Demo(
        settings=settings,
        clips=tuple(_answered(models, question) for question in ones),
        accuracy=accuracy,
        tuned=flow,
        base=base_flow,
        claims=claims,
        attention=attention,
        pruned=pruned,
        smallest=small,
        evidence=beyond,
        trace=trace,
        lens=lens,
        check=check,
        explorer=explore(tuned, ones[0], beside=base, flow=flow),
        models={short_name(name): describe(name, model) for name, model in models.items()},
        seconds=time.monotonic() - began,
        versions=versions(),
    )


def _still(base: HookedVideoTransformer, settings: DemoSettings, *, progress: bool) -> FlowMap:
    """Step 4: where the base has something to lose."""
    n = max(settings.n_accuracy, settings.n)
    seen = load_dataset("shapes", split=settings.split, tasks=STILL_TASKS, n=n, seed=settings.seed)
    return trace_flow(base, seen, routes=NEEDED_STILL, samples="all", seed=settings.seed, progress=progress)


def _questions(settings: DemoSettings) -> list[Question]:
    """Step 1: what is mapped."""
    return [
        question
        for task in TEMPORAL_TASKS
        for question in load_dataset("shapes", split=settings.split, task=task, n=settings.n, seed=settings.seed)
    ]


def _validation(settings: DemoSettings) -> list[Question]:
    """Step 5: what pathways are chosen by; never the split that they are judged by."""
    other = "validation" if settings.split != "validation" else "train"
    return [q for task in TEMPORAL_TASKS for q in load_dataset("shapes", split=other, task=task, n=CHOSEN_BY)]


def _pruned(
    model: HookedVideoTransformer,
    by: Sequence[Question],
    questions: Sequence[Question],
    settings: DemoSettings,
    *,
    progress: bool,
) -> Pruned:
    """Step 5: chosen by one split, judged by another."""
    choice = choose_pathway(model, by, seed=settings.seed, progress=progress)
    accuracy = evaluate_pathway(model, questions, choice.pathway, seeds=2, seed=settings.seed, progress=progress)
    return Pruned(choice, accuracy, pruning_view(model, questions[0], choice.pathway), CHOSEN_BY)


def _lens(
    model: HookedVideoTransformer,
    questions: Sequence[Question],
    settings: DemoSettings,
    *,
    say: Callable[[str], None],
    progress: bool,
) -> LogitLens:
    """Step 5: the words of the video tokens, of a few questions of each task."""
    some = [q for task in TEMPORAL_TASKS for q in [q for q in questions if q.task == task][:READ]]
    known, missing = known_words(model.tokenizer, model.cfg.d_vocab, SHAPES)
    if missing:
        say(f"not in the vocabulary of {settings.model}, so not looked for: {', '.join(missing)}")
    return logit_lens(model, some, keywords=known or None, seed=settings.seed, progress=progress)


def _write(out: Path, demo: Demo, *, progress: bool) -> None:
    """Tables, figures, results and the page."""
    settings = demo.settings
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(json.dumps(settings.plain(), indent=2) + "\n")
    save_flows(out, {settings.model: demo.tuned, settings.base: demo.base})
    demo.accuracy.to_dataframe().to_csv(out / "accuracy.csv", index=False)
    demo.claims.save(out, overwrite=True)
    figures = _figures(demo)
    with progress_bar("drawing", total=len(figures), unit="figures", digits=0, delay=2, shown=progress) as bar:
        for name, draw in figures.items():
            save_figure(draw(), out / f"{name}.png")
            bar.update(1)
    demo.accuracy.save(out / "accuracy", overwrite=True)
    demo.pruned.accuracy.save(out / "pathway", overwrite=True)
    if demo.smallest.search is not None:
        demo.smallest.search.save(out / "search", overwrite=True)
    demo.evidence.stress.save(out / "stress", overwrite=True)
    if demo.evidence.unhinted is not None:
        demo.evidence.unhinted.save(out / "without-hints", overwrite=True)
    demo.trace.save(out / "answer-trace", overwrite=True)
    demo.lens.save(out / "logit-lens", overwrite=True)
    demo.explorer.save_html(out / EXPLORER, overwrite=True)
    demo.pruned.view.save_html(out / "pathway.html", overwrite=True)
    (out / PAGE).write_text(demo_page(demo), encoding="utf-8")


def _figures(demo: Demo) -> dict[str, Callable[[], Figure]]:
    """What draws each figure, by the name of its file."""
    figures: dict[str, Callable[[], Figure]] = {
        f"flow-{kind.replace(' ', '-')}": partial(
            demo.tuned.figure, kind, base=demo.base if kind in ("heat map", "cross-frame") else None
        )
        for kind in kinds_of(demo.tuned)
    }
    figures |= {"accuracy": partial(demo.accuracy.figure, tasks=TEMPORAL_TASKS), "claims": demo.claims.figure}
    figures |= {"pathway": demo.pruned.accuracy.figure, "answer-trace": demo.trace.figure}
    if demo.smallest.search is not None:
        figures["search"] = demo.smallest.search.figure
    figures["stress"] = demo.evidence.stress.figure
    if demo.evidence.unhinted is not None:
        figures["without-hints"] = demo.evidence.unhinted.figure
    figures["words-on-frames"] = partial(demo.lens.figure, "frames", layer=words_at(demo.lens))
    if demo.lens.settings.groups:
        figures["logit-lens"] = demo.lens.figure
    return figures | {
        f"attention-{name}": each.figure for name, each in zip(("tuned", "base"), demo.attention, strict=True)
    }


def _one_of_each(questions: Sequence[Question]) -> list[Question]:
    """The first question of every task."""
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.task, question)
    return list(first.values())


@torch.no_grad()
def _answered(models: dict[str, HookedVideoTransformer], question: Question) -> AnsweredClip:
    """A question with every model's probabilities."""
    shares = {
        short_name(name): tuple(option_probabilities(model, model.prompt(question)).tolist())
        for name, model in models.items()
    }
    return AnsweredClip(question=question, shares=shares, said={})


def _check_directory(out: Path, settings: DemoSettings) -> None:
    """Refuse a directory that is another demonstration's."""
    if out.exists() and not out.is_dir():
        raise VideolensError(f"{out} is a file: give a directory to write to")
    if (out / SETTINGS).is_file():
        there = read_json(out / SETTINGS, finite=False)
        if there != settings.plain():
            raise VideolensError(f"{out} holds a demonstration with other settings ({there}): choose another directory")
