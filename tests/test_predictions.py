"""docs/numbers/predictions.py: what is patched is what it says, and verdicts are those of their intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import videolens as vl
from videolens.experiments.common.statistics import Interval

NUMBERS = Path(__file__).parent.parent / "docs" / "numbers"
LETTERS, WORDS = "shapes", "shapes in words"


@pytest.fixture(scope="module")
def predictions() -> Any:
    """The script, as `python docs/numbers/predictions.py` finds what it imports."""
    sys.path.insert(0, str(NUMBERS))
    try:
        import predictions

        yield predictions
    finally:
        sys.path.remove(str(NUMBERS))


@pytest.fixture(scope="module")
def bundled() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


# -- what is asked


@pytest.fixture(scope="module")
def pair(bundled: vl.HookedVideoTransformer) -> tuple[vl.Prompt, vl.Prompt]:
    question = vl.load_dataset("shapes", split="validation", task="action sequence", n=1)[0]
    return bundled.prompt(question), bundled.prompt(question.reversed())


@pytest.fixture(scope="module")
def rows(predictions: ModuleType, bundled: vl.HookedVideoTransformer, pair: tuple[vl.Prompt, vl.Prompt]) -> Any:
    found = pd.DataFrame(predictions.frame_swaps.of_pair(bundled, pair[0].question))
    assert found["right"].all()
    return found.set_index(["unit", "layer"])


def test_at_the_first_layer_order_is_everything_and_words_are_nothing(rows: pd.DataFrame) -> None:
    first = rows["effect"].xs(1, level="layer")
    whole = first[["video", "order"]]
    assert whole.to_numpy() == pytest.approx(1, abs=1e-3)
    nothing = first[["carried", "question", "between", "last", "stem", "options", "changed options", "same options"]]
    assert nothing.to_numpy() == pytest.approx(0, abs=1e-3)


def effect(model: vl.HookedVideoTransformer, pair: tuple[vl.Prompt, vl.Prompt], hooks: Any) -> float:
    """The effect by plain forwards: how far the difference of the two answers' logits goes from one clip's to the
    other's."""
    clean, backwards = pair

    def difference(logits: torch.Tensor) -> float:
        return float(logits[0, -1, clean.answer_token] - logits[0, -1, backwards.answer_token])

    with torch.no_grad():
        base, source = difference(model(clean)), difference(model(backwards))
        return (difference(model.run_with_hooks(clean, fwd_hooks=hooks)) - base) / (source - base)


@pytest.mark.parametrize("unit", ["video", "order", "carried", "question", "last", "asked half"])
def test_a_unit_is_the_hook_one_would_write_by_hand(
    rows: pd.DataFrame, bundled: vl.HookedVideoTransformer, pair: tuple[vl.Prompt, vl.Prompt], unit: str
) -> None:
    clean, _ = pair
    name, layer = "blocks.5.hook_resid_pre", 6
    own, other = (bundled.run_with_cache(each, names_filter=name)[1][name] for each in pair)
    at = clean.tokens[unit if unit in ("question", "last") else "video"]
    turned = list(range(7, -1, -1))
    first_asked = clean.question.stem.endswith("first?")
    half = [3, 2, 1, 0, 4, 5, 6, 7] if first_asked else [0, 1, 2, 3, 7, 6, 5, 4]
    source, frames = {
        "order": (own, turned),
        "carried": (other, turned),
        "asked half": (own, half),
    }.get(unit, (other, list(range(8))))
    given = source[:, at]
    if len(at) == 128:
        given = given.view(1, 8, 16, -1)[:, frames].flatten(1, 2)
    by_hand = effect(bundled, pair, [(name, lambda value, hook: value.index_copy(1, at, given))])
    assert rows["effect"][unit, layer] == pytest.approx(by_hand, abs=1e-3)


def test_straight_holds_all_that_is_between_video_and_last(
    rows: pd.DataFrame, bundled: vl.HookedVideoTransformer, pair: tuple[vl.Prompt, vl.Prompt]
) -> None:
    clean, backwards = pair
    own = bundled.run_with_cache(clean, names_filter=lambda name: name.endswith("resid_pre"))[1]
    last = int(clean.tokens["last"][0])

    def hold(value: torch.Tensor, hook: Any) -> torch.Tensor:
        held = own[hook.name].clone()
        held[:, last] = value[:, last]
        end = int(clean.tokens["video"][-1]) + 1
        held[:, :end] = value[:, :end]
        return held

    swap = ("blocks.0.hook_resid_pre", lambda value, hook: backwards.residual)
    by_hand = effect(bundled, pair, [swap, *((f"blocks.{i}.hook_resid_pre", hold) for i in range(1, 12))])
    assert rows["effect"]["straight", 1] == pytest.approx(by_hand, abs=1e-3)


def test_pairs_of_the_pathway_are_those_of_the_whole(
    predictions: ModuleType, bundled: vl.HookedVideoTransformer, pair: tuple[vl.Prompt, vl.Prompt]
) -> None:
    """Within the pathway, everything but the patch is as under its masks alone."""
    whole = pd.DataFrame(predictions.frame_swaps.of_pair(bundled, pair[0].question))
    found = pd.DataFrame(predictions.frame_swaps.of_pair(bundled, pair[0].question, "pathway"))
    first = found[(found["unit"] == "video") & (found["layer"] == 1)]
    assert first["effect"].item() == pytest.approx(1, abs=1e-3)
    assert (found["unit"] == "random").sum() == 3
    both = predictions.beside(found, whole)
    assert set(both["unit"]) == {"video", "random", "video in full"} and both["whole"].all()
    assert predictions.right_within(both).n == 1


# -- how it is judged


def table(curves: dict[str, list[float]], *, task: str = "moving direction", pairs: int = 20) -> pd.DataFrame:
    """Alike pairs, with noise of 0.01."""
    noise = np.random.default_rng(0).normal(0, 0.01, (pairs, 12))
    return pd.DataFrame(
        [
            {"task": task, "pair": f"{i}", "right": i > 0, "unit": unit, "layer": layer, "effect": value + more}
            for i in range(pairs)
            for unit, values in curves.items()
            for layer, (value, more) in enumerate(zip(values, noise[i], strict=False), start=1)
        ]
    )


def test_where_a_curve_crosses_one_half(predictions: ModuleType) -> None:
    from frame_swap_measures import crossing

    curves = [[1, 1, 0.75, 0.25], [1, 1, 1, 1], [0.4, 1, 1, 0], [1, 0, 1, 0]]
    by_hand = [3.5, 4.5, 1.0, 1.5]  # the second: after the last layer nothing reads it; the last: the first time
    assert crossing(np.array(curves, dtype=float)) == pytest.approx(by_hand)


def test_layers_are_told_and_pairs_that_are_not_right_left_out(predictions: ModuleType) -> None:
    steps = {"video": [1, 1, 1, 1, 0, 0], "order": [1, 1, 0, 0, 0, 0], "carried": [0, 0, 1, 1, 0, 0]}
    found = table({unit: list(map(float, values)) for unit, values in steps.items()})
    half, turn = predictions.where(predictions.video)(found), predictions.where(predictions.turn)(found)
    later = predictions.where(predictions.video, predictions.turn)(found)
    assert (half.value, turn.value, later.value) == pytest.approx((4.5, 2.5, 2.0), abs=0.02)
    assert half.low < half.value < half.high and half.n == 19
    difference = predictions.at("carried", 3, 4, minus="order")(found)
    assert difference.value == pytest.approx(1)


def test_of_other_tasks_nothing_is_measured(predictions: ModuleType) -> None:
    curves = {"order": [1.0, 1.0], "carried": [0.0, 0.0], "video": [1.0, 0.0]}
    both = pd.concat([table(curves), table({"order": [0.0, 0.0]} | {}, task="scene transition")])
    assert predictions.where(predictions.turn)(both).value == predictions.where(predictions.turn)(table(curves)).value


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.2, 0.8, "held"),
        (0.25, 0.75, "held"),
        (0.2, 0.7, "cannot be told"),
        (0.5, 0.6, "cannot be told"),
        (0.8, 0.9, "refuted"),
        (-1.0, 0.2, "refuted"),
    ],
)
def test_a_verdict_is_that_of_the_interval(predictions: ModuleType, low: float, high: float, verdict: str) -> None:
    said: Callable[..., Any] = predictions.Prediction
    assert said("1", "", LETTERS, low, high, lambda _: None).verdict(Interval(0.5, 0.25, 0.75, 100)) == verdict
    nothing = Interval(float("nan"), float("nan"), float("nan"), 100)
    assert said("1", "", LETTERS, low, high, lambda _: None).verdict(nothing) == "cannot be told"


def test_where_there_is_nothing_little_is_held(predictions: ModuleType) -> None:
    """Curves of noise about 0: what says that something is there is refuted."""
    units = ("video", "order", "carried", "question", "last", "random", "stem", "options", "changed options")
    found = table({unit: [0.0] * 12 for unit in (*units, "same options")})
    there = [each for each in predictions.PREDICTIONS if each.asked == LETTERS and each.low >= 0.1]
    judged = {each.says: each.verdict(each.measure(found)) for each in there if "half" not in each.says}
    assert len(judged) >= 5 and set(judged.values()) <= {"refuted", "cannot be told"}
    assert judged["question, entering layer 9"] == "refuted"


def test_a_table_says_what_was_predicted_and_what_came(
    predictions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 19 pairs: one of 20 is not right."""
    turned = table({"order": [1.0, 0.0], "carried": [0.0, 1.0], "video": [1.0, 1.0]})
    later = predictions.at("carried", 2, minus="order")
    said = predictions.several("1", "turns", predictions.where(predictions.turn), S=(1, 2), SW=(2, 3))
    said += predictions.several("1", "later", later, S=(0.25, predictions.UP))
    monkeypatch.setattr(predictions, "PREDICTIONS", said)
    found = predictions.judged({LETTERS: turned, WORDS: turned})
    assert found["verdict"].tolist() == ["held", "refuted", "held"] and set(found["n"]) == {19}
    assert found["predicted"].tolist() == ["1.00 … 2.00", "2.00 … 3.00", "0.25 … ∞"]
    assert found["measured"][0].startswith("1.50 [1.") and found["measured"][2].startswith("1.00 [")
