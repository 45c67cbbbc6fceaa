"""The benchmark script runs: everything in it, small and once. What it measures is nobody's business here."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import videolens as vl
from videolens.engine.planning import Planner
from videolens.engine.stages import stage_interventions
from videolens.model.cost import Cost

SCRIPT = Path(__file__).parent / "perf" / "flow.py"


@pytest.fixture
def script(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("perf_flow", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(figures: Any) -> Iterator[float]:
    if isinstance(figures, dict):
        for each in figures.values():
            yield from numbers(each)
    else:
        yield figures


def test_every_part_runs_and_its_figures_are_finite(script, capsys, tmp_path) -> None:
    figures = script.main(["a", "b", "c", "--quick", "--threads", "1", "--json", str(tmp_path / "figures.json")])
    assert set(figures) == {"a", "b", "c"} and figures["a"].keys() >= {"11 routes", "10 routes"}
    found = list(numbers(figures))
    assert len(found) > 40 and all(math.isfinite(number) for number in found)
    # what does not depend on the machine
    for part in "ab":
        for routes in ("11 routes", "10 routes"):
            assert figures[part][routes]["max Δlogit, std"] <= 1e-4 and figures[part][routes]["floor"] > 1
    assert figures["c"]["n × n floats"] == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    printed = capsys.readouterr().out
    assert printed.count("share of floor") == 2 and "planned over measured" in printed


def test_memory_is_what_a_call_needs_at_its_worst_moment(script) -> None:
    from perf_memory import peak_bytes

    held = torch.ones(10_000_000)

    def run() -> None:
        first = torch.ones(20_000_000)
        del first
        second = torch.ones(25_000_000)  # 100 MB
        assert len(held) + len(second) == 35_000_000

    assert peak_bytes(run) == pytest.approx(100_000_000, rel=0.05)


@pytest.mark.parametrize(("width", "floors"), [("b", (15.2, 40.3)), ("7b", (15.4, 43.9))])
def test_floors_of_the_benchmark_are_counted_from_its_shape(script, width: str, floors: tuple[float, float]) -> None:
    """The published way against ours for all routes and for the ten text routes: no weights are needed to say."""
    from perf_compare import knockouts_of
    from perf_models import random_original, random_prompt

    wide = script.SHAPES[width]
    narrow = replace(wide, d_model=8, n_heads=1, d_mlp=8, d_vocab=64)
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(narrow))
    prompt = random_prompt(model, narrow)
    assert prompt.shape[1] == 60 + 8 * 144 + 20 + 4 * 20 + 20
    planner = Planner(model, prompt, None)
    d = wide.d_model
    planner.cost = Cost(d_model=d, d_mlp=wide.d_mlp, d_vocab=wide.d_vocab, d_query=d, d_key=d, itemsize=4)
    for routes, floor in zip((vl.ROUTES, script.TEXT_ROUTES), floors, strict=True):
        staged = stage_interventions(model, prompt, knockouts_of(model, prompt, routes))
        plan = planner.plan(staged, planner.rounds(staged))
        assert plan.full_forwards == len(routes) * 32 + 1
        assert plan.ratio == pytest.approx(floor, abs=0.1)
