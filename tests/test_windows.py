"""Windows of layers: the paper's at its depth, to scale at others, cut off at the ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videolens.errors import VideolensError
from videolens.interventions.layer_sets import (
    HALVES,
    STYLES,
    WINDOWED,
    cut_layers,
    cut_words,
    default_bin,
    default_window,
    layer_bins,
    window_layers,
)


@pytest.mark.parametrize(
    ("n_layers", "window", "bin_"),
    [(32, 9, 5), (40, 11, 6), (28, 7, 4), (12, 3, 2), (64, 17, 10), (4, 1, 1), (1, 1, 1)],
)
def test_defaults_are_the_papers_to_scale(n_layers: int, window: int, bin_: int) -> None:
    assert default_window(n_layers) == window
    assert default_bin(n_layers) == bin_


def test_a_window_of_nine_reaches_four_layers_to_both_sides() -> None:
    assert window_layers(16, 9, 32) == range(12, 21)
    assert window_layers(0, 9, 32) == range(0, 5)
    assert window_layers(31, 9, 32) == range(27, 32)
    assert window_layers(3, 1, 12) == range(3, 4)
    assert window_layers(5, 4, 12) == range(3, 7)


@given(st.data())
def test_a_window_holds_its_centre_and_is_the_published_formula(data: st.DataObject) -> None:
    n_layers = data.draw(st.integers(1, 80))
    k = data.draw(st.integers(1, n_layers))
    centre = data.draw(st.integers(0, n_layers - 1))
    layers = window_layers(centre, k, n_layers)
    assert centre in layers
    assert (layers[0], layers[-1]) == (max(0, centre - k // 2), min(n_layers, centre - (-k // 2)) - 1)
    assert len(layers) <= k
    assert default_window(n_layers) % 2 == 1 and 1 <= default_window(n_layers) <= n_layers


@given(st.data())
def test_styles_cut_what_they_say(data: st.DataObject) -> None:
    n_layers = data.draw(st.integers(2, 60))
    k = data.draw(st.integers(1, n_layers - 1))
    every = set(range(n_layers))
    centre, inverse = (cut_layers(style, k, n_layers) for style in WINDOWED)
    down, up, halves = (cut_layers(style, None, n_layers) for style in ("top-down", "bottom-up", "halves"))
    for layer in every:
        assert set(centre[layer]) == set(window_layers(layer, k, n_layers))
        assert set(centre[layer]) | set(inverse[layer]) == every and not set(centre[layer]) & set(inverse[layer])
        assert (down[layer], up[layer]) == (tuple(range(layer, n_layers)), tuple(range(layer + 1)))
        assert set(down[layer]) & set(up[layer]) == {layer}
    for cuts in (centre, inverse, down, up):
        assert list(cuts) == sorted(every) and all(list(cut) == sorted(set(cut)) for cut in cuts.values())
    (at, first), (then, second) = halves.items()
    assert (at, then) == (0, second[0]) and first + second == tuple(range(n_layers))
    assert 0 <= len(second) - len(first) <= 1
    assert cut_layers("first half", None, n_layers) | cut_layers("second half", None, n_layers) == halves


def test_no_two_styles_say_the_same() -> None:
    assert len({cut_words(style, 3, 12) for style in STYLES if style not in HALVES}) == 4
    assert cut_words("centre", 3, 12) == "each is the centre of a window of 3 of 12"
    assert {cut_words(style, None, 12) for style in HALVES} == {"half of the 12 are cut at a time"}


@given(st.integers(1, 80), st.integers(1, 80))
def test_bins_tile_the_layers(n_layers: int, width: int) -> None:
    if width <= n_layers:
        assert [layer for part in layer_bins(n_layers, width) for layer in part] == list(range(n_layers))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: window_layers(12, 3, 12), r"layer 12 .* 0 … 11"),
        (lambda: window_layers(-1, 3, 12), r"layer -1 .* 0 … 11"),
        (lambda: window_layers(3, 13, 12), r"window of 13 layers .* 1 … 12, or None for 3"),
        (lambda: window_layers(3, 0, 12), r"window of 0 layers"),
        (lambda: layer_bins(12, 13), r"bin of 13 layers"),
        (lambda: default_window(0), r"at least one layer"),
        (lambda: cut_layers("central", 3, 12), r"'central'.*did you mean 'centre'"),
        (lambda: cut_layers("centre", 13, 12), r"window of 13 layers"),
        (lambda: cut_layers("top-down", 3, 12), r"'top-down' cuts each layer and all after it.*leave out window=3"),
        (lambda: cut_layers("halves", None, 1), r"a model of 1 layer has no halves"),
    ],
)
def test_misuse_names_the_value_and_the_limit(call, says: str) -> None:
    with pytest.raises(VideolensError, match=says):
        call()
