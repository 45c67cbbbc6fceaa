"""The memory that loading takes, small: the ratio of a 1 GB checkpoint is what `tests/perf/loading.py` prints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "perf" / "loading.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc, which Linux alone has")
def test_loading_takes_little_more_than_the_weights(capsys) -> None:
    spec = importlib.util.spec_from_file_location("perf_loading", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    ratios = script.main(["--bytes", "100000000", "--quick"])
    assert set(ratios) == {"transformers, 1 file", "own reader, 1 file"}
    assert min(ratios.values()) >= 1 and max(ratios.values()) <= script.LIMIT, capsys.readouterr().out
