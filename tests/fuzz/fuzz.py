"""Damage what comes from outside, use it, and accept nothing but a right value or a `VideolensError`.

    python tests/fuzz/fuzz.py --minutes 20 --seed 1
    python tests/fuzz/fuzz.py --case "yaml" 1017          # one case again, with its traceback

A case is a site (`fuzz_sites.py`) and a number, and always the same. Cases run in forked processes: one that takes more
than ten seconds or two gigabytes, or kills its process, is a failure like any other exception. The seconds are those
of the processor, so that a busy machine finds no hangs; a case that only waits has a minute by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "critical"}
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzz_sites import Site, sites

from videolens import VideolensError

LONGEST_S, WAITING, MOST_BYTES, BATCH = 10.0, 6, 2 * 2**30, 25


def outcome(site: Site, whole: Path, seed: int) -> tuple[str, str]:
    """How a case ends ("right", "refused", "wrong"), and what it was."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(scratch) / "there"
        shutil.copytree(whole, folder)
        said = site.damage(folder, Random(f"{site.name} {seed}"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            site.use(folder)
        except VideolensError as error:
            cause: BaseException | None = error
            while cause is not None:  # refused by the machine, not by us
                own = type(cause).__module__.startswith("av.")  # FFmpeg never takes more than two gigabytes at once
                if not own and (isinstance(cause, MemoryError) or "allocate memory" in str(cause)):
                    return "wrong", f"{said} → memory: {error!s:.200}"
                cause = cause.__cause__ or cause.__context__
            return ("wrong", f"{said} → no message") if len(str(error)) < 15 else ("refused", said)
        except BaseException as error:
            return (
                "wrong",
                f"{said} → {type(error).__name__}: {error!s:.200}\n{''.join(traceback.format_exc()[-1500:])}",
            )
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        return ("wrong", f"{said} → {used} bytes") if used > MOST_BYTES else ("right", said)


def _child(cases: list[tuple[Site, Path, int]], pipe: int) -> None:
    """Run cases one after the other, and write a line before and after each."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_BYTES, size + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    for site, whole, seed in cases:
        os.write(pipe, b"begin\n")
        try:
            found = outcome(site, whole, seed)
        except BaseException:  # of the fuzzer itself; nothing may leave a child but by its pipe
            found = "wrong", f"the fuzzer: {traceback.format_exc()[-1500:]}"
        os.write(pipe, (json.dumps(found) + "\n").encode(errors="replace"))
    os._exit(0)


def _processor_s(pid: int) -> float:
    """Seconds that a process has had of the processors, its threads' and those of the kernel for it included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_cases(cases: list[tuple[Site, Path, int]]) -> list[tuple[str, str]]:
    """The outcomes of cases, from as many processes as it takes."""
    found: list[tuple[str, str]] = []
    while len(found) < len(cases):
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(read)
            _child(cases[len(found) :], write)
        os.close(write)
        buffer, why = b"", ""
        began, used = time.monotonic(), 0.0
        while True:
            if not select.select([read], [], [], LONGEST_S / 10)[0]:
                if _processor_s(pid) - used > LONGEST_S or time.monotonic() - began > WAITING * LONGEST_S:
                    why = f"it takes more than {LONGEST_S} s"
                    os.kill(pid, signal.SIGKILL)
                    break
                continue
            if not (more := os.read(read, 1 << 16)):
                break
            buffer += more
            began, used = time.monotonic(), _processor_s(pid)
        os.close(read)
        _, status = os.waitpid(pid, 0)
        found += [tuple(json.loads(line)) for line in buffer.decode().splitlines() if line != "begin"]
        if len(found) < len(cases):
            found.append(("wrong", why or f"the process ended with status {status}"))
    return found


def main() -> int:
    """Run, and say what was found; 1 if anything was."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, help="go on for so long; else --cases of them")
    options.add_argument("--cases", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="sites whose names hold this")
    options.add_argument("--case", nargs=2, metavar=("SITE", "SEED"))
    given = options.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    with tempfile.TemporaryDirectory(prefix="fuzz-whole-") as folder:
        os.environ["VIDEOLENS_CACHE"] = f"{folder}/cache"
        return _main(given, Path(folder))


def _main(given: Any, folder: Path) -> int:
    there = {name: site for name, site in sites().items() if given.only in name}
    whole: dict[str, Path] = {}

    def case(name: str, seed: int) -> tuple[Site, Path, int]:
        if name not in whole:
            whole[name] = folder / f"{len(whole)}"
            whole[name].mkdir()
            there[name].make(whole[name])
        return there[name], whole[name], seed

    if given.case:
        there = sites()
        print(*outcome(*case(given.case[0], int(given.case[1]))))
        return 0
    began, counts, wrong, number = time.monotonic(), Counter[str](), [], 0
    names = sorted(there)
    Random(given.seed).shuffle(names)
    while time.monotonic() - began < given.minutes * 60 if given.minutes else number < given.cases:
        name, batch = names[(number // BATCH) % len(names)], BATCH
        if not given.minutes:  # few cases: some of every kind
            batch = max(1, min(given.cases // len(names), given.cases - number))
            name = names[(number // batch) % len(names)]
        seeds = range(given.seed * 10**6 + number, given.seed * 10**6 + number + batch)
        for seed, (kind, said) in zip(seeds, run_cases([case(name, seed) for seed in seeds]), strict=True):
            counts[kind] += 1
            if kind == "wrong":
                wrong.append(said)
                print(f"{name!r} {seed}: {said}", flush=True)
        number += batch
    seconds = time.monotonic() - began
    print(f"{number} cases of {len(names)} kinds in {seconds:.0f} s: {dict(counts)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
