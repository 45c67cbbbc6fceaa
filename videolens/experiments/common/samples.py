"""Which questions an experiment keeps: those that the model answers rightly, wrongly, or all."""

from __future__ import annotations

from videolens.errors import VideolensError, near

__all__ = ["SAMPLES", "check_samples", "why_left_out"]

SAMPLES = ("correct", "wrong", "all")

_REASONS = {None: "the right answer is not known", True: "answered rightly", False: "answered wrongly"}


def check_samples(samples: str) -> None:
    """Raises:
    VideolensError: no such choice of samples.
    """
    if samples not in SAMPLES:
        raise VideolensError(near(samples, SAMPLES, kind="choice of samples"))


def why_left_out(samples: str, correct: bool | None) -> str | None:
    """Why a question is left out, if it is. `correct`: whether the model answers it rightly; None: not known."""
    return None if samples == "all" or correct is (samples == "correct") else _REASONS[correct]
