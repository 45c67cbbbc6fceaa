"""kill -9 at twenty seeded moments: every resume completes, makes no finished part again, loses at most one, and gives
the files of an undisturbed run, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.report import letter_checkpoint
from helpers.runs import STEPS, Kill, Server

SEED, N_QUESTIONS, CHUNK = 5, 5, 2
N_CHUNKS = 3 * 3
"""Of every experiment: two chunks of two questions and one of the last."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    checkpoint = letter_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", seed=1)
    return {
        "model": str(checkpoint),
        "dataset": {"name": "shapes", "tasks": ["moving direction"], "n": N_QUESTIONS},
        "experiments": [
            {"name": "flow", "window": 1, "samples": "all", "routes": ["cross-frame", "video -> last"], "verify": True},
            {"name": "logit_lens", "top": 1},  # keeps pictures of the first four questions: of two parts, not of all
            {"name": "accuracy", "conditions": ["as is", "shuffled"]},
        ],
        "chunk": CHUNK,
        "figures": False,
    }


@pytest.fixture(scope="module")
def server(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), config["model"]) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(
    server: Server, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """The files of a run that nothing happens to, and how long it takes: the second of two, when clips are written."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in ("one", "two"):
        ended = server.run(config, folder / name)
        assert ended.status == 0, ended.said
        assert len(ended.asked) == N_CHUNKS
    assert contents(folder / "one") == contents(folder / "two")
    return contents(folder / "two"), ended.seconds


def contents(out: Path) -> dict[str, bytes]:
    """Parts and results, by name: all that must not depend on when and how often a run was interrupted."""
    files = sorted(path for folder in ("parts", "results") for path in (out / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def finished_parts(out: Path) -> dict[str, tuple[int, int]]:
    """Which file each part is, and when it was written."""
    parts = (path for path in (out / "parts").glob("*/[0-9]*.part"))
    return {str(path.relative_to(out)): ((state := path.stat()).st_ino, state.st_mtime_ns) for path in parts}


def moments() -> list[Kill]:
    """Twenty: half after a delay, as a share of what the whole run takes; half at a step of writing."""
    draw = random.Random(SEED)
    found = [Kill("written", "parts", 2)]  # between writing and renaming a part
    found += [Kill(draw.choice(STEPS), "parts", draw.randrange(N_CHUNKS)) for _ in range(6)]
    found += [Kill("written", "run.json"), Kill("writing", "config.yaml"), Kill("written", "results")]
    return found + [Kill("delay", seconds=draw.random()) for _ in range(10)]


MOMENTS = moments()


@pytest.mark.parametrize(
    "kill", MOMENTS, ids=lambda kill: f"{kill.step} {kill.file or f'{kill.seconds:.2f}'} {kill.count}"
)
def test_killed_it_goes_on_to_the_same_bytes(
    kill: Kill, server: Server, config: dict[str, Any], undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, whole = undisturbed
    out = tmp_path / "out"
    if kill.step == "delay":
        kill = Kill("delay", seconds=kill.seconds * whole)
    killed = server.run(config, out, kill)
    # a delay is a share of what the run took once: this one may have been quicker
    assert killed.status == -9 or (kill.step == "delay" and killed.status == 0), killed.said
    before = finished_parts(out)
    assert len(killed.asked) - len(before) in (0, 1), "at most the chunk that was being asked is lost"
    if kill.file == "parts":
        unfinished = list((out / "parts").glob("*/.unfinished-*"))
        assert len(unfinished) == (kill.step != "renamed") and len(before) == kill.count + (kill.step == "renamed")
    resumed = server.run(config, out)
    assert resumed.status == 0, resumed.said
    assert len(resumed.asked) == N_CHUNKS - len(before), "what is finished is not asked again"
    after = finished_parts(out)
    assert {name: after[name] for name in before} == before and len(after) == N_CHUNKS
    assert contents(out) == expected
    assert not list(out.rglob(".unfinished-*"))
