"""Verdicts on claims: computed from intervals, never from means, and put into words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import pandas as pd
from pydantic import ConfigDict, TypeAdapter

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import SETTINGS
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number

Verdict = Literal["holds", "does not hold", "cannot be told"]
MARGIN = 3.0
"""Percent or points: a mean change within ± this much counts as none, and so does a difference of two."""
ENOUGH = 50
"""Questions that it takes to say that there is no effect: fewer can well miss those few that have a large one."""

CLAIMS = {
    "1": "Temporal reasoning starts with attention between frames, in early-to-middle layers; "
    "the image-only base has none of it, though on still clips it has the other two routes.",
    "2a": "The video then reaches the question, in the middle layers, and lands on the true option.",
    "2b": "How it gets there depends on the task: straight from the video for action antonym, action sequence and "
    "scene transition, through the question's stem for moving direction and object count.",
    "3": "The question then reaches the last token, in middle-to-late layers; "
    "almost nothing goes there from the video directly.",
}
"""The paper's claims 1 to 3, in our words; the second in two parts, for one can hold without the other."""


def judge(interval: Interval, *, low: float = -math.inf, high: float = math.inf) -> Verdict:
    """Whether a quantity lies between `low` and `high`, as far as its interval tells.

    "holds": all of the interval lies inside. "does not hold": all of it lies outside. "cannot be told": some does, or
    the quantity is not defined, or one question is all that there is.
    """
    if interval.n < 2 or math.isnan(interval.value) or math.isnan(interval.low) or math.isnan(interval.high):
        return "cannot be told"
    if low < interval.low and interval.high < high:
        return "holds"
    if interval.high <= low or interval.low >= high:
        return "does not hold"
    return "cannot be told"


def questions_to_settle(interval: Interval, *, low: float = -math.inf, high: float = math.inf) -> int | None:
    """How many questions would tell on which side of `low` and `high` a quantity lies, if it stayed what it is.

    Intervals shrink as 1 / √n; `ENOUGH` at least. None: it lies so near to an end that 100 times as many would not do.
    """
    ends = [end for end in (low, high) if math.isfinite(end)]
    nearest = min((abs(interval.value - end) for end in ends), default=math.nan)
    width = max(interval.value - interval.low, interval.high - interval.value)
    if not nearest > width / 10:
        return None
    return max(ENOUGH, math.ceil(interval.n * (width / nearest) ** 2))


def judge_effect(deepest: Interval, whole: Interval, *, margin: float) -> Verdict:
    """Whether a cut lowers a probability by more than `margin`, from its deepest window and the mean over all windows.

    The deepest of many windows is deep by chance too: it counts only if the mean over all of them lies below zero as
    well. That there is no effect takes `ENOUGH` questions.
    """
    verdict = judge(deepest, high=-margin)
    if verdict == "holds" and judge(whole, high=0.0) != "holds":
        return "cannot be told"
    return "cannot be told" if verdict == "does not hold" and deepest.n < ENOUGH else verdict


def judge_absent(deepest: Interval, whole: Interval, *, margin: float) -> Verdict:
    """Whether a cut changes nothing beyond ±`margin`, of `ENOUGH` questions. It does if there is an effect."""
    verdict = judge(deepest, low=-margin, high=margin)
    if verdict == "does not hold" and deepest.high <= -margin:
        return "does not hold" if judge_effect(deepest, whole, margin=margin) == "holds" else "cannot be told"
    return "cannot be told" if verdict == "holds" and deepest.n < ENOUGH else verdict


def judge_difference(interval: Interval, *, sign: int, margin: float) -> Verdict:
    """Whether a difference has the `sign` (1 or −1) that is claimed. One smaller than `margin` tells nothing."""
    if not abs(interval.value) >= margin:
        return "cannot be told"
    return judge(interval, low=0.0) if sign > 0 else judge(interval, high=0.0)


@dataclass(frozen=True)
class Finding:
    """One statement of a claim, what was measured, and the verdict.

    Attributes:
        claim: "1", "2a", "2b" or "3".
        name: a few words for what was measured.
        statement: in words.
        measured: the estimate with its interval; None if there is nothing to measure it on.
        unit: "%" (relative change of the answer's probability), "points" (change of the right option's), "layer"
            (0-based) or "layers" (a distance).
        verdict: computed by `judge`.
        settled_by: where it cannot be told of an effect, how many questions would probably tell; None: not known.
    """

    claim: str
    name: str
    statement: str
    measured: Interval | None
    unit: str
    verdict: Verdict
    settled_by: int | None = None

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS  # when it is read back

    def __post_init__(self) -> None:
        if self.claim not in CLAIMS:
            raise VideolensError(f"claim {self.claim!r} is not one of {list(CLAIMS)}")
        if self.verdict not in get_args(Verdict):
            raise VideolensError(f"verdict {self.verdict!r} is not one of {list(get_args(Verdict))}")
        if self.measured is None and self.verdict != "cannot be told":
            raise VideolensError(f"{self.statement!r} is said to be {self.verdict!r}, but nothing was measured")

    @property
    def estimate(self) -> str:
        """The measurement in words, without n. Layers are counted from 1 here, as in the paper and in the figures."""
        if self.measured is None:
            return "not measured"
        if math.isnan(self.measured.value):
            return "not defined: no window lowers the probability"
        first, sign = (1, "") if self.unit == "layer" else (0, "+")
        ends = (self.measured.value, self.measured.low, self.measured.high)
        value, low, high = (number(each + first, 1, sign=sign) for each in ends)
        return f"layer {value} [{low}, {high}]" if first else f"{value} [{low}, {high}] {self.unit}"

    @property
    def numbers(self) -> str:
        """The measurement in words, with n, and the n that would probably tell where this one does not."""
        if self.measured is None:
            return self.estimate
        more = "" if self.settled_by is None else f" (about {_rounded(self.settled_by)} would tell)"
        return f"{self.estimate}, n = {self.measured.n}{more}"


def _rounded(n: int) -> int:
    """To two digits that count, upwards."""
    step = 10 ** max(len(str(n)) - 2, 0)
    return -(-n // step) * step


@dataclass(frozen=True)
class Claims(Result):
    """What was found about each claim.

    Attributes:
        findings: every statement, claim by claim.
        tuned, base: the models' names.
        n_layers: depth of the tuned model.
        window: layers blocked together.
        margin: what counts as no effect, in percent or points.

    Raises:
        VideolensError: a claim without a statement. Only 2b may go without: where none of its tasks was traced.
    """

    findings: tuple[Finding, ...]
    tuned: str
    base: str | None
    n_layers: int
    window: int
    margin: float = MARGIN

    __pydantic_config__: ClassVar[ConfigDict] = SETTINGS  # when they are read back
    _called: ClassVar[str] = "judgement of claims"
    _files: ClassVar[dict[str, str]] = {"": "claims.json"}

    def check(self) -> None:
        """Every claim has a finding."""
        if missing := [claim for claim in CLAIMS if claim != "2b" and not self.about(claim)]:
            raise VideolensError(f"there is no finding about the claims {missing}")

    def about(self, claim: str) -> list[Finding]:
        """The findings about one claim."""
        return [finding for finding in self.findings if finding.claim == claim]

    def verdict(self, claim: str) -> Verdict:
        """Holds if every statement does, does not hold if one does not, else cannot be told."""
        verdicts = {finding.verdict for finding in self.about(claim)} or {"cannot be told"}
        if "does not hold" in verdicts:
            return "does not hold"
        return "cannot be told" if "cannot be told" in verdicts else "holds"

    def sentence(self, claim: str) -> str:
        """The verdict on a claim in one plain sentence, with the numbers it rests on."""
        found = self.about(claim)
        if not found:
            return f"Claim {claim} cannot be told: none of its tasks was traced."
        told = {
            verdict: [f"{each.name} {each.estimate}" for each in found if each.verdict == verdict]
            for verdict in get_args(Verdict)
        }
        holding, failing, open_ = (told[verdict] for verdict in ("holds", "does not hold", "cannot be told"))
        whole = not (failing or open_)
        parts = [f"{len(failing)} of its {len(found)} statements fail ({'; '.join(failing)})"] if failing else []
        parts += [f"{len(open_)} cannot be told ({'; '.join(open_)})"] if open_ else []
        parts += (
            [f"{f'all {len(holding)} statements' if whole else len(holding)} hold ({'; '.join(holding)})"]
            if holding
            else []
        )
        counts = sorted({each.measured.n for each in found if each.measured is not None})
        n = (
            ""
            if not counts
            else f", n = {counts[0]}"
            if len(counts) == 1
            else f", n = {counts[0]} to {counts[-1]} questions"
        )
        verdict = {"holds": "holds in this model", "does not hold": "does not hold as a whole in this model"}
        return f"Claim {claim} {verdict.get(self.verdict(claim), 'cannot be told as a whole')}: {', '.join(parts)}{n}."

    def to_dataframe(self) -> pd.DataFrame:
        """One row per statement: claim, name, statement, value, low, high, n, unit, verdict. Layers count from 0."""
        rows = []
        for finding in self.findings:
            seen = finding.measured or Interval(math.nan, math.nan, math.nan, 0)
            row: dict[str, Any] = {"claim": finding.claim, "name": finding.name, "statement": finding.statement}
            row |= {"value": seen.value, "low": seen.low, "high": seen.high, "n": seen.n}
            rows.append(row | {"unit": finding.unit, "verdict": finding.verdict})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        told = ", ".join(f"{claim}: {self.verdict(claim)}" for claim in CLAIMS)
        return f"Claims({self.tuned!r} beside {self.base!r}, {told})"

    def _contents(self) -> dict[str, Any]:
        return {self._files[""]: asdict(self)}

    @classmethod
    def _from_contents(cls, read: dict[str, Any]) -> Claims:
        return TypeAdapter(cls).validate_json(read[""], strict=True)
