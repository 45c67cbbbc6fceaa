"""Every pathway that a search has found, and others beside it, asked of questions that none of them was found on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from videolens.experiments.common.provenance import made_with
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.result import (
    FULL,
    REVERSED,
    PathwaySearch,
    SearchRow,
    SearchSettings,
)
from videolens.interventions.cut_routes import CutRoutes
from videolens.model.transformer import HookedVideoTransformer


def tabulate(
    model: HookedVideoTransformer,
    held_out: Judge,
    pathways: Mapping[str, CutRoutes],
    chosen: str,
    *,
    request: Mapping[str, float],
    slack: float,
    searched: Judge,
    orders: Sequence[str],
    seed: int,
) -> PathwaySearch:
    """The result of a search: every question with nothing cut, along every pathway, and with its clip reversed."""
    names = held_out.names
    rows = _whole(names, FULL, held_out)
    for called, pathway in pathways.items():
        found = held_out.judge(pathway)
        each = zip(names, found.margins.tolist(), found.live_edges.tolist(), found.flops.tolist(), strict=True)
        rows += [SearchRow(*name, called, margin > 0, margin, live, flops) for name, margin, live, flops in each]
    if (backwards := _reversed(model, held_out)) is not None:
        rows += _whole(names, REVERSED, backwards)
    settings = SearchSettings(
        **made_with(model),
        n_asked=held_out.n,
        seed=seed,
        pathways={name: pathway.to_dict() for name, pathway in pathways.items()},
        chosen=chosen,
        request=dict(request),
        slack=slack,
        orders=tuple(orders),
        n_searched=searched.n,
        candidates=searched.effort.candidates,
        asked=searched.effort.asked,
        operations=searched.effort.operations,
    )
    return PathwaySearch(pd.DataFrame(rows, columns=list(SearchRow._fields)), settings)


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
