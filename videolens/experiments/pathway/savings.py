"""What running only a pathway saves: operations, time and memory of the compiled model, beside the full and the masked
one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from videolens.drawing.html import render, two_lines
from videolens.engine.full import full_logits
from videolens.errors import VideolensError, check_whole
from videolens.experiments.common.timing import in_turn
from videolens.interventions.cut_routes import CutRoutes
from videolens.model.agreement import apart
from videolens.model.checkpoints.files import short_name
from videolens.model.compiled.row_plan import RowPlan
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

FULL, MASKED, COMPILED = "full", "masked", "compiled"
"""Nothing cut; the whole model under a pathway's masks; what the pathway leaves and nothing else."""


class SavingRow(NamedTuple):
    """A way to answer: a row of the table. Means over questions, of one question.

    Attributes:
        pathway: its name; empty for the full model.
        way: "full", "masked" or "compiled".
        gflop: operations of a forward in 10⁹, the vision tower left out.
        seconds: median over questions and rounds; seconds_low, seconds_high: their quartiles.
        cache: bytes of keys and values that are kept when all tokens are written.
    """

    pathway: str
    way: str
    gflop: float
    seconds: float
    seconds_low: float
    seconds_high: float
    cache: float


@dataclass(frozen=True, eq=False)
class Savings:
    """Pathways run in full under their masks, and compiled, in turn on the same machine.

    Attributes:
        model: that ran.
        n: questions.
        rounds: in which each was run.
        new_tokens: that are written, of the cache.
        apart: largest difference between compiled and masked logits, in standard deviations of a question's logits.
        table: one `SavingRow` each.
    """

    model: str
    n: int
    rounds: int
    new_tokens: int
    apart: float
    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"Savings({self.model!r}, {self.n} questions in {self.rounds} rounds, apart by {self.apart:.1g})"


def measure_savings(
    model: HookedVideoTransformer,
    prompts: Sequence[Prompt],
    pathways: Mapping[str, CutRoutes],
    *,
    new_tokens: int = 64,
    rounds: int = 5,
) -> Savings:
    """Run some questions in full, and along every pathway masked and compiled; prompts are made, and plans, before.

    Args:
        model: the model.
        prompts: questions laid out for it.
        pathways: by name.
        new_tokens: how many are written where the cache is counted; nothing is generated.
        rounds: all ways in turn, so many times, and once before to warm up.

    Raises:
        VideolensError: no prompts; less than one round or token; or as `model.compile` raises.
    """
    check_whole("rounds", rounds, least=1)
    check_whole("new_tokens", new_tokens, least=1)
    if not prompts or not pathways:
        raise VideolensError(f"{len(prompts)} prompts, {len(pathways)} pathways: give at least one of each to be timed")
    if "" in pathways:  # what the row of the full model is called
        raise VideolensError("a pathway has no name: give {name: pathway}")
    compiled = {name: model.compile(pathway) for name, pathway in pathways.items()}
    taken: dict[tuple[str, str], list[float]] = {}
    off = 0.0
    for prompt in prompts:
        runs: dict[tuple[str, str], Callable[[], Any]] = {("", FULL): partial(full_logits, model, prompt, ())}
        for name, fast in compiled.items():
            masked = partial(full_logits, model, prompt, fast.pathway.hooks(prompt))
            runs |= {(name, MASKED): masked, (name, COMPILED): partial(fast, prompt)}
            logits = masked()
            off = max(off, apart(fast(prompt)[0, -1], logits))
        for way, times in in_turn(runs, rounds).items():
            taken.setdefault(way, []).extend(times)
    rows = []
    for (called, how), times in taken.items():
        plans = [
            (compiled[called] if called else next(iter(compiled.values()))).plan(each, new_tokens) for each in prompts
        ]
        rows.append(_row(called, how, times, plans))
    table = pd.DataFrame(rows, columns=list(SavingRow._fields))
    return Savings(short_name(model.cfg.model_name), len(prompts), rounds, new_tokens, off, table)


def savings_section(savings: Savings) -> Markup:
    """The table, with what each way saves of the full model's."""
    full = savings.table.iloc[0]
    rows = [
        [
            two_lines(row.pathway, row.way) if row.pathway else "nothing cut",
            f"{row.gflop:.2f}",
            two_lines(f"{1000 * row.seconds:.1f}", f"{1000 * row.seconds_low:.1f} – {1000 * row.seconds_high:.1f}"),
            f"{full.seconds / row.seconds:.2f} ×",
            f"{row.cache / 2**20:.2f}",
        ]
        for row in savings.table.itertuples()
    ]
    return render(__file__, "savings.html", savings=savings, rows=rows)


def _row(pathway: str, way: str, times: Sequence[float], plans: Sequence[RowPlan]) -> SavingRow:
    """Masks spare no row: what is computed under them, and kept, is counted as in full."""
    flops, cache = (
        ([one.flops for one in plans], [one.cache_bytes() for one in plans])
        if way == COMPILED
        else ([one.full_flops for one in plans], [one.full_cache_bytes() for one in plans])
    )
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return SavingRow(pathway, way, float(np.mean(flops)) / 1e9, middle, low, high, float(np.mean(cache)))
