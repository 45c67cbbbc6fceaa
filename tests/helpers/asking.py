"""Asking in parts, as a run does: every part is written and read back, and all are put together."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import pandas as pd

from videolens.experiments.common.asking import gather, named
from videolens.experiments.common.experiment import Experiment, Gathered


def in_parts(experiment: Experiment[Any], items: Iterable[Any]) -> Any:
    """The result of one part for each item, without what it cost."""
    parts = []
    for item in items:
        ticks: list[float] = []
        asked = list(experiment.ask_each(named(experiment, [item]), ticks.append))
        assert sum(ticks) <= 1 + 1e-6
        parts.append(gather(experiment, asked, len(asked)))
    together = Gathered(
        table=_written([part.table for part in parts]),
        also={name: _written([part.also[name] for part in parts]) for name in experiment.also},
        skipped=tuple(skip for part in parts for skip in part.skipped),
        n_asked=sum(part.n_asked for part in parts),
    )
    return experiment.result(together)


def _written(tables: list[pd.DataFrame]) -> pd.DataFrame:
    read = [pd.read_parquet(BytesIO(table.to_parquet(index=False))) for table in tables]
    filled = [table for table in read if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]
