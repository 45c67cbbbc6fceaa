"""How much anonymous memory a call needs above what is held before it, measured from outside of Python's allocator.

Anonymous memory (`RssAnon`) leaves out the code and weights that are mapped from files. The kernel remembers only the
peak of all resident memory (`VmHWM`, which can be reset), so a thread samples the anonymous part as well, and the
larger of the two readings counts.

glibc keeps freed memory for later and would blur what is needed now: processes that measure are started with
`ENVIRONMENT`, under which every tensor of 64 kB or more is mapped on its own and given back when it is freed.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ENVIRONMENT", "in_processes", "measure_each", "peak_bytes"]

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_processes(script: str, whats: Sequence[str], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What `measure_each` prints when a script is started with `--measure` and these things to measure."""
    command = [sys.executable, script, *arguments, "--measure", *whats]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(whats) :]]


def measure_each(whats: Sequence[str], measure: Callable[[str], Any]) -> None:
    """Measure each thing in a process of its own, and print a line of JSON for it.

    The processes are forked from this one, which has imported everything and run nothing: starting Python and importing
    torch takes seconds, and what that holds in memory is there before each measurement in any case.
    """
    gc.freeze()  # the collector would write to memory that all share
    sys.stdout.flush()
    for what in whats:
        if (child := os.fork()) == 0:
            status = 1
            try:
                print(json.dumps(measure(what)), flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"measuring {what!r} ended with status {status}")


def peak_bytes(run: Callable[[], Any]) -> int:
    """Anonymous bytes at the worst moment of a call, above those before it.

    1. Collect garbage; note the anonymous memory; reset the kernel's peak.
    2. Run, while a thread looks every half millisecond.
    3. The peak is the larger of what the thread saw and of the kernel's peak less what is mapped from files.
    """
    gc.collect()
    before = _read("RssAnon")
    _RESET.write_text("5")
    watch = _Watch()
    watch.start()
    try:
        run()
    finally:
        watch.stop()
    by_kernel = _read("VmHWM") - _read("RssFile") - _read("RssShmem")
    return max(watch.peak, by_kernel) - before


class _Watch(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._running = 0, True

    def run(self) -> None:
        while self._running:
            self.peak = max(self.peak, _read("RssAnon"))
            time.sleep(0.0005)

    def stop(self) -> None:
        self._running = False
        self.join()


def _read(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} does not say {name}: memory is measured on Linux only")
