"""Runs that last: experiments over a data set, from a file of settings, cut into parts, resumed after anything."""

from __future__ import annotations

from videolens.runs.runner import Run, run

__all__ = ["Run", "run"]
