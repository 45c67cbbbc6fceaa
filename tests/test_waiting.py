"""The command line has torch's threads sleep while they wait; nobody else's process is changed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from videolens.__main__ import PASSIVE, main

SCRIPT = Path(__file__).parent / "perf" / "loaded.py"
TOLD = """
import json, os, sys
from videolens import __main__ as line
before = "torch" in sys.modules
from argparse import Namespace
def run(options):
    print(json.dumps([before, {name: os.environ.get(name) for name in line.PASSIVE}]))
class Parser:
    def parse_args(self, arguments): return Namespace(run=run)
line.parser = Parser
line.main([])
"""


def told(**environment: str) -> dict[str, str | None]:
    """How threads wait in a process of the command line."""
    unset = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], env=unset | environment, capture_output=True, text=True, check=True
    )
    before, found = json.loads(done.stdout)
    assert not before, "torch was there before it could be told"
    return dict(found)


def test_the_command_line_waits_passively() -> None:
    assert told() == PASSIVE


def test_what_the_user_has_set_stays() -> None:
    assert told(OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="7") == PASSIVE | {
        "OMP_WAIT_POLICY": "active",
        "GOMP_SPINCOUNT": "7",
    }


def test_a_process_that_has_torch_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    assert "torch" in sys.modules
    assert main(["data", "shapes", str(tmp_path / "data"), "--n", "1", "--task", "colour"]) == 0
    assert not set(PASSIVE) & set(os.environ)


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("perf_loaded", SCRIPT)
    assert spec is not None and spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    figures = script.main(["--quick"])
    assert set(figures) == {"default", "passive", "one thread"}
    assert all(math.isfinite(number) and number > 0 for row in figures.values() for number in row.values())
    assert "loaded / quiet" in capsys.readouterr().out
