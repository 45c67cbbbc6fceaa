"""The parts of a page that say what flow maps mean for the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from videolens.drawing.html import badge, render
from videolens.experiments.claims.result import CLAIMS, Claims, Finding
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.section import routes_table

_HOPS = (
    "How the true option is reached: the effect of cutting video → true option minus that of cutting stem → true "
    "option. Below zero the direct way matters more, above zero the one through the stem."
)
_GUESSES = (
    "A word on the base: where it guesses, the answer that the maps follow is whatever it happens to rank first, and "
    "any disturbance tends to lower a number that was picked for being the highest. So the base, and what compares it "
    "with the tuned model, is judged by the probability of the right option, which was not picked by looking at the "
    "model."
)


def section(claims: Claims, *, flows: Sequence[FlowMap] = ()) -> Markup:
    """Every statement with its interval and verdict.

    Args:
        claims: the verdicts.
        flows: the maps that they were read from, for a table of every route's effect and centre.
    """
    return render(
        __file__,
        claims=claims,
        texts=CLAIMS,
        margin=f"{claims.margin:g}",
        rows={claim: list(map(_row, claims.about(claim))) for claim in CLAIMS},
        notes={claim: _note(claims.about(claim)) for claim in CLAIMS},
        routes=routes_table(flows) if flows else "",
    )


def brief(claims: Claims) -> Markup:
    """Each claim with its verdict and one sentence."""
    return render(__file__, "brief.html", claims=claims, texts=CLAIMS)


def _row(finding: Finding) -> list[str]:
    return [finding.statement, finding.numbers, badge(finding.verdict)]


def _note(findings: Sequence[Finding]) -> str:
    """How to read the statements of a claim."""
    hops = any("reached" in each.statement for each in findings)
    guesses = any(each.name.endswith("in the base") for each in findings)
    return " ".join(text for text, needed in ((_HOPS, hops), (_GUESSES, guesses)) if needed)
