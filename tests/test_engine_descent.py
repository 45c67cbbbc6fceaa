"""Long passes follow each branch to its end before the next: the same logits, and hardly any stream waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers.engine import FAMILIES, N_LAYERS, all_windows, distance, random_pair

import videolens as vl
from videolens.engine import descent, evaluate, planning, sweep
from videolens.engine.descent import goes_deep, most_waiting
from videolens.engine.passes import make_passes
from videolens.engine.stages import stage_interventions


@pytest.fixture
def always_deep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One branch in a call, and no prefix too long."""
    monkeypatch.setattr(planning, "_ROWS_PER_CALL", {"cpu": 1})
    monkeypatch.setattr(descent, "_FEW", 0)
    yield


def mixed(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> list[object]:
    """Windows, patches of every layer, of the front end, and two that part late."""
    source, entering = (vl.SourceRun.record(model, prompt, site) for site in ("resid_pre", "video_tokens"))
    patches = [
        vl.Patch("resid_pre", layers=layer, positions=f"frame {frame}", source=source)
        for layer in range(N_LAYERS)
        for frame in (0, 2)
    ]
    patches += [vl.Patch("video_tokens", positions=f"frame {frame}", source=entering) for frame in (0, 1)]
    together = [[vl.Knockout("video", "stem", layers=[0]), vl.Knockout("stem", "last", layers=[at])] for at in (1, 2)]
    return [*all_windows(N_LAYERS, 2), *patches, *together]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_deep_is_what_plain_forwards_give(family: str, always_deep: None) -> None:
    model, prompt = random_pair(family)
    many = mixed(model, prompt)
    expected, found = (evaluate(model, prompt, many, engine=engine) for engine in ("full", "exact"))
    assert distance(found, expected, expected.std()).max() <= 1e-4
    assert float((expected - expected[-1]).abs().max()) > 100 * 1e-4 * float(expected.std()), "they do differ"


def test_with_a_base_it_is_the_same_bit_for_bit(always_deep: None) -> None:
    model, prompt = random_pair("grouped heads")
    many = mixed(model, prompt)
    alone, based = (sweep(model, prompt, many, base=base) for base in (None, vl.engine.base(model, prompt)))
    assert torch.equal(alone.logits, based.logits) and torch.equal(alone.base, based.base)


def test_the_shares_sum_to_one(always_deep: None) -> None:
    model, prompt = random_pair("one key head")
    shares: list[float] = []
    sweep(model, prompt, mixed(model, prompt), tick=shares.append)
    assert sum(shares) == pytest.approx(1.0)


def test_few_streams_wait() -> None:
    model, prompt = random_pair("one key head")
    windows = [vl.Knockout.route("cross-frame", layers=range(at, at + 1)) for at in range(N_LAYERS)]
    (one,) = make_passes(stage_interventions(model, prompt, windows), N_LAYERS)
    assert max(len(one.level(layer)) for layer in range(N_LAYERS)) == N_LAYERS
    assert most_waiting(one, N_LAYERS) == 1, "every window begins in a layer of its own, from the clean run"
    # three that share their first layer wait for one another, in one stream
    shared = [vl.Knockout.route("cross-frame", layers=range(stop)) for stop in range(1, N_LAYERS + 1)]
    (one,) = make_passes(stage_interventions(model, prompt, shared), N_LAYERS)
    assert most_waiting(one, N_LAYERS) == 2


def test_only_long_passes_with_little_before_them_go_deep() -> None:
    model, prompt = random_pair("one key head")
    (one,) = make_passes(stage_interventions(model, prompt, [vl.Knockout.route("cross-frame", layers=[0])]), N_LAYERS)
    assert goes_deep(one, 1, 8 * one.first_row) and not goes_deep(one, 1, 8 * one.first_row - 1)
    assert not goes_deep(one, 2, 8 * one.first_row)
