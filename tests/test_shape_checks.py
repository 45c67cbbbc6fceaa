"""Shapes and types are checked while the tests run, whichever way a function is checked."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from helpers import shape_checks
from helpers.shape_checks import names_a_shape, with_checks
from jaxtyping import Float

from videolens.datasets.shapes_world import Thing
from videolens.errors import near
from videolens.experiments.common.statistics import bootstrap_mean
from videolens.experiments.patch_map.contrast import kl_divergence

Curve = Float[np.ndarray, " layer"]


@dataclass(frozen=True)
class Held:
    value: int


def test_a_wrong_shape_is_found() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        bootstrap_mean(np.zeros((2, 3)))


def test_a_wrong_type_is_found_where_there_are_no_shapes() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        near("a", 5)


def test_a_field_of_the_wrong_shape_is_found() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        Thing("circle", "red", np.zeros((17, 3)))


def test_an_axis_has_one_size_throughout_a_call_and_another_in_the_next() -> None:
    for size in (4, 5):
        assert kl_divergence(torch.zeros(size), torch.zeros(2, size)).shape == (2,)
    with pytest.raises(BeartypeCallHintViolation):
        kl_divergence(torch.zeros(1), torch.zeros(2, 5))


def test_what_comes_out_has_the_axes_of_what_went_in() -> None:
    @with_checks(typechecker=beartype)
    def first(curve: Curve, n: int) -> Curve:
        return curve[:n]

    @with_checks(typechecker=beartype)
    def half_of(curve: Curve, times: int) -> Curve:
        first(curve[: len(curve) // 2], len(curve) // 2)  # an axis of its own, whose size is another
        return np.repeat(curve, times)

    assert len(first(np.zeros(3), 3)) == 3 and len(half_of(np.zeros(8), 1)) == 8
    for wrong in (lambda: first(np.zeros(3), 2), lambda: half_of(np.zeros(8), 2)):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_an_annotation_that_cannot_be_read_leaves_the_others_checked() -> None:
    @with_checks(typechecker=beartype)
    def some(value: NotThere, n: int) -> int:  # noqa: F821
        return n

    assert some(None, 1) == 1
    with pytest.raises(TypeError):
        some(None, "1")


def test_functions_of_one_def_share_a_check_and_nothing_else() -> None:
    def times(factor: Held) -> Callable[[Any], Any]:
        @with_checks(typechecker=beartype)
        def multiplied(curve: Curve, times: int = factor.value) -> Curve:
            return curve * factor.value * times

        return multiplied

    held, known = [Held(2), Held(5)], len(shape_checks._INNER)
    twice, five_times = (times(each) for each in held)
    assert [float(each(np.ones(1))[0]) for each in (twice, five_times, twice)] == [4, 25, 4]
    assert [float(each(np.ones(1), 3)[0]) for each in (twice, five_times, twice)] == [6, 15, 6]
    for each in (twice, five_times):
        with pytest.raises(BeartypeCallHintViolation, match="multiplied"):
            each(np.ones(1), "3")
        with pytest.raises(BeartypeCallHintViolation):
            each(np.ones((1, 1)))
    assert len(shape_checks._INNER) == known + 1
    gone = [weakref.ref(each) for each in held]
    del twice, five_times, each, held
    gc.collect()
    assert [each() for each in gone] == [None, None], "the check keeps nothing alive"


def test_which_functions_name_shapes() -> None:
    def plain(names: Sequence[str], n: int | None = None) -> dict[str, float]: ...

    def alias(curve: Curve) -> None: ...

    def inside(curves: list[Float[np.ndarray, " layer"]]) -> None: ...

    def unknown(value: NotThere) -> None: ...  # noqa: F821

    assert [names_a_shape(each) for each in (plain, alias, inside)] == [False, True, True]
    with pytest.raises(NameError):
        names_a_shape(unknown)
