"""Half precision: a map says how much of a change is rounding, and no verdict rests on less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.flow import plausible_flow

import videolens as vl
from videolens.experiments.flow.differences import mean_difference

ROUTES = ["cross-frame", "video -> question", "question -> last"]


@pytest.fixture(scope="module")
def maps() -> dict[torch.dtype, vl.FlowMap]:
    asked = vl.load_dataset("shapes", split="validation", tasks=["action antonym", "object count"], n=6)
    models = {dtype: vl.HookedVideoTransformer.from_pretrained("shapes", dtype=dtype) for dtype in DTYPES}
    return {
        dtype: vl.trace_flow(model, asked, routes=ROUTES, samples="all", progress=False)
        for dtype, model in models.items()
    }


DTYPES = (torch.float32, torch.bfloat16)


def test_only_half_precision_has_noise_and_it_is_that_of_its_numbers(maps: dict[torch.dtype, vl.FlowMap]) -> None:
    exact, rounded = maps[torch.float32], maps[torch.bfloat16]
    assert exact.settings.noise is None and exact.noise_floor("cross-frame") == 0.0
    assert rounded.settings.dtype == "bfloat16" and rounded.settings.noise is not None
    # what it is said to be, and what it is: the difference to float32, at the windows that are repeated
    truth = rounded.table["change_percent"].to_numpy() - exact.table["change_percent"].to_numpy()
    deepest = np.abs(truth).reshape(12, len(ROUTES), 12).max(axis=(1, 2))
    rms = float(np.sqrt((deepest**2).mean()))
    assert rms / 5 < rounded.settings.noise < 5 * rms, "of its order"
    assert rounded.noise_floor("cross-frame") == pytest.approx(1.96 * rounded.settings.noise / 12**0.5)
    assert rounded.noise_floor("cross-frame", task="object count") == pytest.approx(
        1.96 * rounded.settings.noise / 6**0.5
    )


def test_a_repeated_knockout_counts_as_forwards(maps: dict[torch.dtype, vl.FlowMap]) -> None:
    exact, rounded = (maps[dtype].settings.forwards for dtype in DTYPES)
    assert exact is not None and rounded is not None and exact < rounded < 1.6 * exact


def test_mean_changes_lie_within_the_floor_of_float32(maps: dict[torch.dtype, vl.FlowMap]) -> None:
    exact, rounded = maps[torch.float32], maps[torch.bfloat16]
    for route in ROUTES:
        off = np.abs(rounded.curve(route).mean - exact.curve(route).mean)
        assert off.max() <= 1.5 * rounded.noise_floor(route), route


def test_the_noise_is_saved_and_drawn(maps: dict[torch.dtype, vl.FlowMap], tmp_path) -> None:
    again = vl.FlowMap.load(maps[torch.bfloat16].save(tmp_path / "map"))
    assert again.settings.noise == maps[torch.bfloat16].settings.noise

    def bands(flow: vl.FlowMap) -> int:
        figure = flow.figure("cross-frame")
        return sum(patch.get_facecolor()[3] == 0.15 for axes in figure.axes for patch in axes.patches)

    assert bands(again) == len(again.tasks) and bands(maps[torch.float32]) == 0
    assert "rounding in bfloat16" in " ".join(text.get_text() for text in again.figure("cross-frame").texts)


def test_effects_within_the_noise_cannot_be_told() -> None:
    """One and the same map, whose noise is small, and large."""
    flow = plausible_flow(n=40)
    quiet, loud = (replace(flow, settings=replace(flow.settings, noise=noise)) for noise in (0.1, 1e4))
    told = {name: vl.check_claims(each) for name, each in {"none": flow, "quiet": quiet, "loud": loud}.items()}
    for name in ("none", "quiet"):
        assert {each.name: each.verdict for each in told[name].findings}["question → last"] == "holds"
    of_effects = [each for each in told["loud"].findings if each.unit in ("%", "points")]
    assert of_effects and {each.verdict for each in of_effects} == {"cannot be told"}
    gaps = [mean_difference(each, each, "true option -> last", "false options -> last") for each in (flow, loud)]
    assert gaps[1].high - gaps[1].low > gaps[0].high - gaps[0].low


def test_patch_maps_have_it_too(tmp_path) -> None:
    """Of the map's own metric, of the order of the difference to float32, saved and drawn."""
    asked = vl.load_dataset("shapes", split="validation", tasks=["moving direction"], n=4)
    pairs = [(question, question.reversed()) for question in asked]
    exact, rounded = (
        vl.patch_map(vl.HookedVideoTransformer.from_pretrained("shapes", dtype=dtype), pairs, progress=False)
        for dtype in DTYPES
    )
    assert exact.settings.noise is None and exact.noise_floor() == 0.0
    noise = rounded.settings.noise
    assert noise is not None and np.isnan(rounded.noise_floor("kl")), "measured on the metric that is drawn"
    assert "rounding in bfloat16 was not measured" in "".join(text.get_text() for text in rounded.figure("kl").texts)
    off = np.stack([rounded.effects(pair=pair) - exact.effects(pair=pair) for pair in exact.pairs])
    rms = float(np.sqrt((100 * np.abs(off).max(axis=(1, 2))) ** 2 @ np.full(4, 0.25)))
    assert rms / 5 < noise < 5 * rms, (rms, noise)
    assert rounded.noise_floor() == pytest.approx(1.96 * noise / 100 / 2)
    assert rounded.noise_floor(pair=exact.pairs[0]) == pytest.approx(1.96 * noise / 100)
    assert 0 < rounded.settings.forwards - exact.settings.forwards < 0.6 * exact.settings.forwards
    again = vl.PatchMap.load(rounded.save(tmp_path / "map"))
    assert again.noise_floor() == rounded.noise_floor()
    said = [text.get_text() for figure in (again.figure(), exact.figure()) for text in figure.texts]
    assert sum("rounding in bfloat16" in text for text in said) == 1
    shown = [float(cell.get_text().replace("−", "-")) for cell in again.figure().axes[0].texts]
    assert shown and min(map(abs, shown)) >= 100 * again.noise_floor() - 0.5


def test_patches_before_the_first_layer_are_repeated_from_there() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes", dtype=torch.bfloat16)
    question = vl.load_dataset("shapes", split="validation", tasks=["moving direction"], n=1)[0]
    found = vl.patch_map(model, question, question.reversed(), site="video_tokens", progress=False)
    assert found.settings.noise is not None and found.settings.noise > 0
