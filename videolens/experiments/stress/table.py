"""A stress test as a table for people: a row per perturbation, severities side by side."""

from __future__ import annotations

from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import interval_text
from videolens.experiments.stress.result import FULL, NONE, Stress

TABLE_NOTE = (
    "Right choices in percent, by severity 1 · 2 · 3. Means over the severities: points that the pathway has more "
    "(paired, 95 % bootstrap over questions), and the share of choices that are those of the whole model."
)


def table_head(stress: Stress) -> list[str]:
    """The names of the columns."""
    head = ["perturbation", FULL]
    for name in _pathways(stress):
        head += [name, f"{name} − {FULL}", f"{name} = {FULL}, %"]
    return head


def table_rows(stress: Stress) -> list[list[str]]:
    """The cells of every row: what `TABLE_NOTE` says."""
    rows = []
    for perturbation in [NONE, *stress.perturbations]:
        severities = stress.severities(perturbation)
        row = [perturbation, _shares(stress, perturbation, FULL)]
        for name in _pathways(stress):
            same = [stress.agreement(name, perturbation, severity).value for severity in severities]
            apart = stress.mean_difference(name, perturbation)
            row += [_shares(stress, perturbation, name), _points(apart), f"{100 * sum(same) / len(same):.0f}"]
        rows.append(row)
    return rows


def markdown(stress: Stress) -> str:
    """The table for a page of documentation."""
    head = table_head(stress)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *table_rows(stress)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pathways(stress: Stress) -> list[str]:
    return [name for name in stress.conditions if name != FULL]


def _points(apart: Interval) -> str:
    return interval_text(apart.value, apart.low, apart.high, 0)


def _shares(stress: Stress, perturbation: str, condition: str) -> str:
    """ "98 · 90 · 72", in percent, by severity."""
    shares = [stress.accuracy(perturbation, at, condition=condition).value for at in stress.severities(perturbation)]
    return " · ".join(f"{100 * share:.0f}" for share in shares)
