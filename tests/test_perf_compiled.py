"""The benchmark of compiled pathways runs, small and once; its bounds are counted from its shapes."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import videolens as vl
from videolens.model.cost import Cost

SCRIPT = Path(__file__).parent / "perf" / "compiled.py"


@pytest.fixture
def script(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("perf_compiled", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_runs_and_its_figures_are_finite(script, capsys, tmp_path) -> None:
    figures = script.main(["a", "--quick", "--threads", "1", "--json", str(tmp_path / "figures.json")])
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    found = figures["a"]
    assert len(found) > 9 and all(math.isfinite(number) for number in found.values())
    # what does not depend on the machine
    assert found["to masked, std"] <= 1e-4 and found["same tokens as masked"] and found["bound"] > 1.4
    assert "seconds (wall), medians" in capsys.readouterr().out


@pytest.mark.parametrize(("part", "bound", "trimmed", "cache"), [("a", 1.70, 1.65, 8.0), ("b", 2.05, 2.00, 7.7)])
def test_bounds_are_counted_from_the_shapes(script, part: str, bound: float, trimmed: float, cache: float) -> None:
    """The full forward against the compiled one, at the paper's layout and ranges: no weights are needed to say."""
    from perf_models import random_original, random_prompt

    wide = script.SHAPES[part]
    narrow = replace(wide, d_model=8, n_heads=1, d_mlp=8, d_vocab=64, tower=(16, 1))
    model = vl.HookedVideoTransformer.from_hugging_face(random_original(narrow))
    prompt = random_prompt(model, narrow)
    d, n = wide.d_model, prompt.shape[1]
    cost = Cost(d_model=d, d_mlp=wide.d_mlp, d_vocab=wide.d_vocab, d_query=d, d_key=d, itemsize=4)
    plan = replace(model.compile(script.pathway_of(part)).plan(prompt, script.NEW), cost=cost)
    assert plan.bound == pytest.approx(bound, abs=0.01)
    # beside a full forward that computes no more than one row of its last layer
    less = cost.layer(n, n, n * (n + 1) // 2) - cost.layer(n, 1, n)
    assert (plan.full_flops - less) / plan.flops == pytest.approx(trimmed, abs=0.01)
    assert plan.full_cache_bytes() / plan.cache_bytes() == pytest.approx(cache, abs=0.05)
    # after the prompt alone
    assert plan.full_cache_bytes(0) / plan.cache_bytes(0) > 11
