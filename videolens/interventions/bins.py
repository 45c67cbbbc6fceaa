"""Neighbouring layers in bins: a sixth of a model at a time, as the paper's tables summarise it, and which are open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from videolens.errors import VideolensError

__all__ = ["Flow", "default_bin", "layer_bins", "open_layers"]


def default_bin(n_layers: int) -> int:
    """Layers in a bin: 5/32 of them, rounded, at least 1: the paper's 5 at 32 layers."""
    if n_layers < 1:
        raise VideolensError(f"a model has at least one layer, got {n_layers}")
    return max(1, math.floor(5 * n_layers / 32 + 0.5))


def layer_bins(n_layers: int, width: int | None = None) -> list[range]:
    """Neighbouring layers in bins that do not overlap; the last one takes what is left. `width` None: `default_bin`."""
    width = default_bin(n_layers) if width is None else width
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= n_layers:
        raise VideolensError(f"a bin of {width!r} layers does not fit a model of {n_layers}: choose 1 … {n_layers}")
    return [range(first, min(n_layers, first + width)) for first in range(0, n_layers, width)]


@runtime_checkable
class Flow(Protocol):
    """What a pathway is chosen from: a `FlowMap`."""

    @property
    def settings(self) -> Any:
        """`n_layers`, and the style of its windows."""
        ...

    @property
    def routes(self) -> list[str]:
        """What was traced."""
        ...

    @property
    def tasks(self) -> list[str]:
        """Whose questions."""
        ...

    def changes(
        self, route: str, *, task: str | None = None, measure: str = "answer"
    ) -> Float[ndarray, "question layer"]:
        """The change of every question by the window around every layer."""
        ...


def open_layers(
    flow: Flow, route: str, *, threshold: float | int, width: int | None, groups: Sequence[str | None], measure: str
) -> list[int]:
    """Layers of the bins in which the mean change along a route is below the threshold, in any group of questions.

    Args:
        flow: the changes.
        route: one of its routes.
        threshold: in percent.
        width: layers in a bin; None: `default_bin`.
        groups: tasks; None: all questions together.
        measure: of the change, in percent.

    Raises:
        VideolensError: a threshold that is no number, a bin that does not fit, or a route along which nothing is known.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or math.isnan(threshold):
        raise VideolensError(f"threshold = {threshold!r}: give a number of percent, such as -5")
    changes = [found.mean(axis=0) for group in groups if len(found := flow.changes(route, task=group, measure=measure))]
    if not changes:
        raise VideolensError(f"no question of this map has a known {measure!r} along {route!r}: nothing to choose by")
    bins = layer_bins(flow.settings.n_layers, width)
    return [x for each in bins if any(change[list(each)].mean() < threshold for change in changes) for x in each]
