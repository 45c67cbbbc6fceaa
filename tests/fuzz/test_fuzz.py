"""Some of the fuzzer's cases of every kind, always the same; many more where VIDEOLENS_FUZZ says so (CI: 1000)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def test_whatever_is_damaged_is_right_or_refused() -> None:
    cases = int(os.environ.get("VIDEOLENS_FUZZ") or (400 if os.environ.get("CI") else 70))
    command = [sys.executable, str(FUZZ), "--cases", str(cases), "--seed", "7"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, f"{found.stdout[-5000:]}\n{found.stderr[-3000:]}"


def test_a_fault_is_found(tmp_path: Path) -> None:
    """The fuzzer itself: an exception that is not ours, a hang, memory, and a process that dies are all failures."""
    script = tmp_path / "own.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FUZZ.parent)!r})\n"
        "import os, time, fuzz\n"
        "from pathlib import Path\n"
        "fuzz.LONGEST_S, fuzz.WAITING = 1.0, 2\n"
        "def use(what):\n"
        "    return lambda folder: exec(what, {'os': os, 'time': time, 'VideolensError': fuzz.VideolensError})\n"
        "cases = ['pass', 'raise VideolensError(\"what it was: do this\")', 'raise KeyError(1)', 'time.sleep(9)',\n"
        "         'while True: pass', 'bytearray(2**33)', 'os._exit(3)', 'os.abort()', 'raise VideolensError(\"\")']\n"
        f"whole = Path({str(tmp_path)!r}, 'whole'); whole.mkdir()\n"
        "made = [(fuzz.Site(one, None, lambda folder, rng: 'so', use(one)), whole, 0) for one in cases]\n"
        "print([kind for kind, _ in fuzz.run_cases(made)])\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == str(["right", "refused", *["wrong"] * 7])
