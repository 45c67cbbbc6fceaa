"""Runs on Ray: many workers give the bytes of one process, also when they are killed; what cannot be is one error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest

import videolens as vl
from videolens.errors import VideolensError
from videolens.experiments.common.experiment import Experiment, Skip
from videolens.runs import runner, workers
from videolens.runs.parts import Part
from videolens.runs.workers import Workers, check_workers

CONFIG: dict[str, Any] = {
    "model": "shapes",
    "dataset": {"name": "shapes", "tasks": ["moving direction", "action antonym"], "n": 6},
    "threads": 1,
    "chunk": 2,
    "figures": False,
    "experiments": [
        {"name": "flow", "window": 3, "routes": ["cross-frame", "video -> last"]},
        {"name": "attention_map"},
        "accuracy",
    ],
}
N_CHUNKS = 18


@pytest.fixture
def ray() -> Any:
    return pytest.importorskip("ray", reason="workers are Ray's: pip install 'videolens[ray]'")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_while_they_ask(n: int, killed: list[int], stop: threading.Event) -> None:
    """kill -9 for `n` different workers, each in the middle of a chunk."""
    while len(killed) < n and not stop.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                asking = process.name().startswith("ray::Worker.ask") or "ray::Worker.ask" in " ".join(
                    process.cmdline()
                )
                if asking and process.pid not in killed:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    break
            except psutil.Error:
                continue
        time.sleep(0.02)


def test_killed_twice_the_bytes_are_those_of_one_process(ray: Any, tmp_path: Path) -> None:
    vl.run(CONFIG, tmp_path / "one", progress=False)
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_while_they_ask, args=(2, killed, stop))
    killer.start()
    try:
        vl.run(CONFIG, tmp_path / "two", workers=2, progress=False)
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 2
    events = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("worker lost") == 2
    parts = [(event["experiment"], event["index"]) for event in events if event["event"] == "part"]
    assert len(parts) == len(set(parts)) == N_CHUNKS, "each part is written once"
    assert files(tmp_path / "one/parts") == files(tmp_path / "two/parts")
    assert files(tmp_path / "one/results") == files(tmp_path / "two/results")
    assert not ray.is_initialized()


def test_a_worker_that_cannot_load_is_one_error(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(vl.bundled_path("shapes"), tmp_path / "model")

    def load_and_take_away(*given: Any) -> Any:
        model = runner.__dict__["_model_of"](*given)
        shutil.rmtree(tmp_path / "model")
        return model

    monkeypatch.setattr(runner, "_model_of", runner.model_of, raising=False)
    monkeypatch.setattr(runner, "model_of", load_and_take_away)
    with pytest.raises(VideolensError, match=r"a worker cannot do its work: .*model"):
        vl.run(CONFIG | {"model": str(tmp_path / "model")}, tmp_path / "run", workers=1, progress=False)
    assert not ray.is_initialized()


# --- without Ray ------------------------------------------------------------------------------------------------------


class RayError(Exception):
    """What all of Ray's own errors are."""


class Local:
    """What `Workers.ask` needs of Ray, in this process: a call is made when it is fetched, the latest chunk first."""

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayTaskError=type("RayTaskError", (RayError,), {"cause": ValueError("no disk")}),
    )

    def __init__(self, dies: int = 0, fails: bool = False, identity: str = "same"):
        self.dies, self.fails, self.identity, self.asked = dies, fails, identity, []

    def remote(self, *settings: Any) -> Any:
        """An actor."""
        call = SimpleNamespace
        return SimpleNamespace(
            begin=call(remote=lambda: (object(), "begin", None)), ask=call(remote=lambda *what: (object(), "ask", what))
        )

    def wait(self, refs: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        first = next((ref for ref in refs if ref[1] == "begin"), refs[-1])
        return [first], [ref for ref in refs if ref is not first]

    def get(self, ref: Any) -> Any:
        _, kind, what = ref
        if kind == "begin":
            return self.identity
        if self.fails:
            raise self.exceptions.RayTaskError
        if self.dies:
            self.dies -= 1
            raise self.exceptions.RayError
        self.asked.append(what)
        return pictured(2 if what[1] != 1 else 0)


def pictured(n: int) -> Part:
    return Part(pd.DataFrame(), {}, (), (), (), 0, n)


class Asks(Experiment[Any]):
    """An experiment that keeps pictures of the first four questions, or of none."""

    name, row, pictures = "asks", Skip, 4

    def __init__(self, clips: bool):
        self.also = {"clips": Skip} if clips else {}

    def ask(self, *given: Any) -> Any:
        raise AssertionError("a worker asks")

    def result(self, *given: Any) -> Any:
        raise AssertionError("nothing is put together")


def pool(local: Local, n: int = 3) -> Workers:
    made = Workers(n, None, workers.RunConfig({}, {}, ()), 1, "same", 9)
    made._ray, made._kind = local, local
    return made


def chunks(label: str, n: int, clips: bool) -> list[Any]:
    return [(workers.Chunk("run", label, i, ()), Asks(clips)) for i in range(n)]


def asked(local: Local, work: list[Any]) -> tuple[list[Any], list[Any]]:
    done: dict[tuple[str, int], Any] = {}
    lost: list[Any] = []
    pool(local).ask(work, done, lambda chunk, part, _: done.update({(chunk.label, chunk.index): part}), lost.append)
    assert set(done) == {(chunk.label, chunk.index) for chunk, _ in work}
    return local.asked, lost


def test_a_chunk_waits_until_it_is_known_how_many_pictures_are_before_it() -> None:
    order, _ = asked(Local(), chunks("seen", 6, clips=True))
    assert order[:3] == [("seen", 0, 0), ("seen", 1, 2), ("seen", 2, 2)], "two, none, and two more pictures"
    assert sorted(order[3:]) == [("seen", i, 4) for i in (3, 4, 5)], "four are there: what follows waits for nothing"
    order, _ = asked(Local(), chunks("plain", 6, clips=False))
    assert sorted(order) == [("plain", i, 0) for i in range(6)] and order != sorted(order)


def test_a_dead_worker_is_replaced_until_a_chunk_has_killed_three() -> None:
    order, lost = asked(Local(dies=2), chunks("flow", 4, clips=False))
    assert len(order) == 4 and len(lost) == 2
    with pytest.raises(VideolensError, match=r"3 workers died over part \d of flow: .*more memory"):
        asked(Local(dies=99), chunks("flow", 1, clips=False))


def test_a_worker_that_fails_or_sees_something_else_ends_the_run() -> None:
    with pytest.raises(VideolensError, match="a worker cannot do its work: no disk"):
        asked(Local(fails=True), chunks("flow", 2, clips=False))
    with pytest.raises(VideolensError, match="a worker sees another run"):
        asked(Local(identity="other"), chunks("flow", 2, clips=False))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": -1}, "workers"),
        ({"ray": "auto"}, "ray = 'auto' without workers: say how many"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(VideolensError, match=said):
        vl.run(CONFIG, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "there", "said"),
    [
        ("cpu", {"CPU": 2.0}, "workers = 3, but Ray has 2 CPUs, and each worker takes one: take at most 2"),
        ("cuda", {"CPU": 8.0, "GPU": 1.0}, "workers = 3, but Ray has 1 GPUs"),
        ("cuda:1", {"CPU": 8.0, "GPU": 8.0}, "each has a GPU of its own, so give device 'cuda'"),
    ],
)
def test_workers_that_would_wait_for_ever(device: str, there: dict[str, float], said: str) -> None:
    made = pool(Local())
    made.config = workers.RunConfig({"device": device}, {}, ())
    with pytest.raises(VideolensError, match=said):
        made._gpus(there)


def test_a_worker_has_a_gpu_where_the_model_goes_on_one() -> None:
    made = pool(Local())
    for device, there, gpus in (("cuda", 8.0, 1), ("cuda", 0.0, 0), ("cpu", 8.0, 0)):
        made.config = workers.RunConfig({"device": device}, {}, ())
        assert made._gpus({"CPU": 8.0, "GPU": there}) == gpus


def test_a_session_of_the_callers_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SimpleNamespace(is_initialized=lambda: True, shutdown=lambda: pytest.fail("it is not ours to end"))
    monkeypatch.setitem(sys.modules, "ray", mine)
    with pytest.raises(VideolensError, match="Ray runs in this process already"):
        pool(Local()).__enter__()


def test_more_workers_than_chunks() -> None:
    with pytest.raises(
        VideolensError, match="workers = 10, but the run has only 9 chunks of 4 questions: take at most 9"
    ):
        pool(Local(), 10)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VideolensError, match=r"Ray cannot be imported .*pip install 'videolens\[ray\]'"):
        check_workers(2, None)


def test_a_dead_address_is_told_at_once(ray: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for dead in (address, "127.0.0.1:port"):
        made = Workers(1, dead, workers.RunConfig({}, {}, ()), 1, "same", 9)
        with pytest.raises(VideolensError, match=f"ray = '{dead}': nothing answers there"):
            made.__enter__()
