"""Every pathway that a search has found, and others beside it, asked of questions that none of them was found on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from videolens.experiments.common.provenance import made_with
from videolens.experiments.search.controls import controls_of
from videolens.experiments.search.judging import Judge, Judged
from videolens.experiments.search.keeping import Effort
from videolens.experiments.search.result import (
    FULL,
    REVERSED,
    PathwaySearch,
    SearchRow,
    SearchSettings,
)
from videolens.interventions.cut_routes import CutRoutes
from videolens.model.transformer import HookedVideoTransformer
from videolens.progress import progress_bar


def tabulate(
    model: HookedVideoTransformer,
    held_out: Judge,
    pathways: Mapping[str, CutRoutes],
    chosen: str,
    draws: int,
    effort: Effort,
    searched: int,
    asked: Mapping[str, Any],
    *,
    seed: int,
    progress: bool = False,
) -> PathwaySearch:
    """The result of a search: every question with nothing cut, along every pathway, and with its clip reversed.

    Args:
        model: the model.
        held_out: the questions.
        pathways: those to judge, by name.
        chosen: the one that was asked for.
        draws: random controls of it.
        effort: what finding them has cost.
        searched: how many questions they were found on.
        asked: settings of the search.
        seed: of the bootstrap.
        progress: show a bar.
    """
    names = held_out.names
    rows = _whole(names, FULL, held_out)
    controls = controls_of(held_out, pathways[chosen], draws)
    each = {name: partial(held_out.judge, pathway) for name, pathway in pathways.items()} | controls
    with progress_bar("judging", total=len(each) * held_out.n, unit="answers", digits=0, shown=progress) as bar:
        for called, judged in each.items():
            bar.set_description_str(f"judging {called}", refresh=False)
            rows += _along(names, called, judged(bar.update))
    if (backwards := _reversed(model, held_out)) is not None:
        rows += _whole(names, REVERSED, backwards)
    settings = SearchSettings(
        **made_with(model),
        n_asked=held_out.n,
        seed=seed,
        pathways={name: pathway.to_dict() for name, pathway in pathways.items()},
        chosen=chosen,
        controls=tuple(controls),
        n_searched=searched,
        **effort._asdict(),
        **asked,
    )
    return PathwaySearch(pd.DataFrame(rows, columns=list(SearchRow._fields)), settings)


def _along(names: Sequence[tuple[str, str]], called: str, found: Judged) -> list[SearchRow]:
    """Rows of questions along a pathway."""
    each = zip(names, found.margins.tolist(), found.live_edges.tolist(), found.flops.tolist(), strict=True)
    return [SearchRow(*name, called, margin > 0, margin, live, flops) for name, margin, live, flops in each]


def _whole(names: Sequence[tuple[str, str]], called: str, judge: Judge) -> list[SearchRow]:
    """Rows of questions with nothing cut."""
    margins = judge.full.tolist()
    return [SearchRow(*name, called, margin > 0, margin, 1.0, 1.0) for name, margin in zip(names, margins, strict=True)]


def _reversed(model: HookedVideoTransformer, held_out: Judge) -> Judge | None:
    """The same questions about the clips played backwards; None where a prompt was made by hand."""
    questions = [prompt.question for prompt in held_out.prompts if prompt.question is not None]
    if len(questions) < held_out.n:
        return None
    return Judge(model, [model.prompt(replace(each, video=each.video.reversed())) for each in questions])
