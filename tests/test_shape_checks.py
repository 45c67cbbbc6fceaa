"""Shapes and types are checked while the tests run, whichever way a function is checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from helpers.shape_checks import names_a_shape
from jaxtyping import Float, TypeCheckError

from videolens.errors import near
from videolens.experiments.common.statistics import bootstrap_mean

Curve = Float[np.ndarray, " layer"]


def test_a_wrong_shape_is_found() -> None:
    with pytest.raises(TypeCheckError):
        bootstrap_mean(np.zeros((2, 3)))


def test_a_wrong_type_is_found_where_there_are_no_shapes() -> None:
    with pytest.raises(BeartypeCallHintViolation):
        near("a", 5)


def test_which_functions_name_shapes() -> None:
    def plain(names: Sequence[str], n: int | None = None) -> dict[str, float]: ...

    def alias(curve: Curve) -> None: ...

    def inside(curves: list[Float[np.ndarray, " layer"]]) -> None: ...

    def unknown(value: NotThere) -> None: ...  # noqa: F821

    assert [names_a_shape(each) for each in (plain, alias, inside, unknown)] == [False, True, True, True]
