"""The benchmarks of attributions run: everything in them, small and once, and two ways to one number agree."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "perf"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"perf_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_time_and_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is read from /proc, which Linux alone has")
    figures = script("attribution", monkeypatch).main(["--quick", "--threads", "1"])
    assert figures["memory"]["n × n floats"] == 0
    ratios = [value for each in figures["time"].values() for value in each.values()]
    ratios += [value for size in ("8 frames", "32 frames") for value in figures["memory"][size].values()]
    assert len(ratios) == 3 * 4 + 2 * 6 and all(math.isfinite(value) and value > 0 for value in ratios)
    assert "exact over layer" in capsys.readouterr().out


@pytest.mark.slow
def test_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = script("attribution_variants", monkeypatch).main(["--n", "1", "--tasks", "1", "--methods", "local"])
    for grain in ("routes", "heads", "frame pairs"):
        assert figures["local, written out"][grain] == pytest.approx(figures["local"][grain], abs=0.02)
    assert figures["layer, 0 ahead"]["routes"] == pytest.approx(figures["layer"]["routes"], abs=0.02)
