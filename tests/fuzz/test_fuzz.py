"""Some of the fuzzer's cases of every kind, always the same; many more where VIDEOLENS_FUZZ says so (CI: 1000).

Everything runs in one process of its own, which imports the package as a user's does: without checks of types.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")

BOTH = """
import sys; sys.path.insert(0, sys.argv[2])
import json, os, time, fuzz
from pathlib import Path
folder, cases = Path(sys.argv[1]), sys.argv[3]

def use(what):
    return lambda folder: exec(what, {"os": os, "time": time, "VideolensError": fuzz.VideolensError})

faults = ["pass", "raise VideolensError('what it was: do this')", "raise KeyError(1)", "time.sleep(9)",
          "while True: pass", "bytearray(2**33)", "os._exit(3)", "os.abort()", "raise VideolensError('')"]
whole = folder / "whole"; whole.mkdir()
as_it_is = fuzz.LONGEST_S, fuzz.WAITING
fuzz.LONGEST_S, fuzz.WAITING = 1.0, 2
made = [(fuzz.Site(one, None, lambda folder, rng: "so", use(one)), whole, 0) for one in faults]
kinds = [kind for kind, _ in fuzz.run_cases(made)]
fuzz.LONGEST_S, fuzz.WAITING = as_it_is
(folder / "kinds.json").write_text(json.dumps(kinds))
sys.argv[1:] = ["--cases", cases, "--seed", "7"]
status = fuzz.main()
sys.stdout.flush()
os._exit(status)  # nothing is left to do, and taking torch apart takes seconds
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """The kinds of outcome of the fuzzer's own faults, and how the process ended that then ran the cases."""
    cases = int(os.environ.get("VIDEOLENS_FUZZ") or (400 if os.environ.get("CI") else 70))
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-c", BOTH, str(folder), str(FUZZ.parent), str(cases)]
    found: Any = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    kinds = folder / "kinds.json"
    return json.loads(kinds.read_text()) if kinds.exists() else [], found


def test_whatever_is_damaged_is_right_or_refused(
    ended: tuple[list[str], subprocess.CompletedProcess[str]],
) -> None:
    found = ended[1]
    assert found.returncode == 0, f"{found.stdout[-5000:]}\n{found.stderr[-3000:]}"
    assert " cases of " in found.stdout, "it came to its end"


def test_a_fault_is_found(ended: tuple[list[str], subprocess.CompletedProcess[str]]) -> None:
    """The fuzzer itself: an exception that is not ours, a hang, memory, and a process that dies are all failures."""
    kinds, found = ended
    assert kinds == ["right", "refused", *["wrong"] * 7], found.stderr[-3000:]
