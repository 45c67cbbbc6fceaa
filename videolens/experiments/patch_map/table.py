"""What a patch map's tables hold, and how it was made."""

from __future__ import annotations

from typing import NamedTuple

from pydantic.dataclasses import dataclass

from videolens.experiments.common.provenance import SETTINGS, Made

DIRECTIONS = {"denoise": ("corrupted", "clean"), "noise": ("clean", "corrupted")}
"""Direction → (the run that is patched, the run that it is patched from)."""


class PatchRow(NamedTuple):
    """One patch of one pair: a row of a patch map's table.

    Attributes:
        pair: name of the pair: the id of its question.
        site, direction: what was patched, and which way; the same in all rows.
        layer: 0-based (0 for the front end, which lies before it).
        unit, label: what was patched, and what figures call it.
        n_positions: how many positions that is.
        logit_diff: logit of the clean answer minus that of the other.
        probability: of the clean answer.
        kl: KL(run patched from ‖ patched run), nats.
        logit_diff_effect, probability_effect, kl_effect: 0 as the run that is patched, 1 as the run patched from; NaN
            where those two do not differ.
    """

    pair: str
    site: str
    direction: str
    layer: int
    unit: str
    label: str
    n_positions: int
    logit_diff: float
    probability: float
    kl: float
    logit_diff_effect: float
    probability_effect: float
    kl_effect: float


class RunRow(NamedTuple):
    """The two runs of one pair, unpatched.

    Attributes:
        pair, task: name of the pair, and the task of its question.
        clean_answer, other_answer: the tokens whose logits are compared.
        logit_diff_clean, logit_diff_corrupted: logit of the one minus that of the other, in either run.
        probability_clean, probability_corrupted: of the clean answer, in either run.
        kl: KL(run patched from ‖ run that is patched), nats.
        says_clean, says_corrupted: the token ranked first in either run.
        frames, rows, columns: the grid of video tokens.
    """

    pair: str
    task: str
    clean_answer: str
    other_answer: str
    logit_diff_clean: float
    logit_diff_corrupted: float
    probability_clean: float
    probability_corrupted: float
    kl: float
    says_clean: str
    says_corrupted: str
    frames: int
    rows: int
    columns: int


class ClipRow(NamedTuple):
    """A frame of one of a pair's clips, "clean" or "corrupted", as a small picture: 0-based number, PNG."""

    pair: str
    clip: str
    frame: int
    png: bytes


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PatchSettings(Made):
    """How a patch map was made. Forwards are those of a pair; the run that is patched from is not counted.

    Attributes:
        n_layers: depth of the model.
        layers: the 0-based layers that were patched.
        over: "frame", "role", "token", "patch", "head", or "selections".
        metric: what figures show unless told otherwise.
        positions: the selection that the map keeps to; None: everything.
        engine: how patched runs were computed.
    """

    n_layers: int
    layers: tuple[int, ...]
    over: str
    metric: str
    positions: str | None = None
    engine: str = "exact"
