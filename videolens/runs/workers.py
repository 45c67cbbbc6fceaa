"""Asking in many processes, on Ray: each holds the model, chunks are what they are given, and the caller writes.

Nothing depends on which worker asks a chunk or when: a chunk is given out once the number of pictures before it is
known, which is all that it takes from earlier ones. So the parts are those of one process, to the byte.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from videolens.errors import VideolensError, check_whole
from videolens.experiments.common.experiment import Experiment
from videolens.runs.asking import ask_chunk, cut, pictured_before
from videolens.runs.config import RunConfig, digest
from videolens.runs.identity import identity_of
from videolens.runs.making import experiments_of, model_of, questions_of
from videolens.runs.parts import Chunk, Part

_TRIES = 3
_ANSWERS_S = 5.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_raylet_start_wait_time_s": "180",  # half a minute is too short for a busy machine
}
Item = tuple[Chunk, Experiment[Any]]


def check_workers(workers: int | None, address: str | None) -> None:
    """Raises:
    VideolensError: no positive whole number of workers, an address without workers, or Ray is not installed.
    """
    if workers is None:
        if address is not None:
            raise VideolensError(f"ray = {address!r} without workers: say how many, --workers N")
        return
    check_whole("workers", workers, least=1)
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise VideolensError(
            f"workers = {workers}, but Ray cannot be imported ({error}): pip install 'videolens[ray]'"
        ) from error


class Worker:
    """What a process holds; Ray calls it from afar."""

    def __init__(self, config: RunConfig, threads: int, folder: str) -> None:
        self.config, self.threads, self.folder = config, threads, folder

    def begin(self) -> str:
        """Load questions, model and experiments; gives the digest of the run as it is seen from here."""
        os.chdir(self.folder)  # relative paths of the config are looked up from there
        torch.set_num_threads(self.threads)
        questions = questions_of(self.config)
        identity = digest(identity_of(self.config, questions))
        experiments = experiments_of(self.config, model_of(self.config, lambda text: None))
        self.chunks = {
            (label, chunk.index): (experiment, some)
            for label, experiment in experiments.items()
            for chunk, some in cut(identity, label, questions, self.config.chunk)
        }
        return identity

    def ask(self, label: str, index: int, pictured: int) -> Part:
        """Ask one chunk."""
        experiment, some = self.chunks[label, index]
        return ask_chunk(experiment, some, lambda n: None, pictured=pictured)


class Workers:
    """So many workers, for as long as this is entered.

    Raises:
        VideolensError: there are more workers than chunks, or the cluster does not answer.
    """

    def __init__(
        self, n: int, address: str | None, config: RunConfig, threads: int, identity: str, n_chunks: int
    ) -> None:
        if n > n_chunks:
            raise VideolensError(
                f"workers = {n}, but the run has only {n_chunks} chunks of {config.chunk} questions: take at most "
                f"{n_chunks}, or a smaller chunk in the config"
            )
        self.n, self.address, self.config, self.threads, self.identity = n, address, config, threads, identity
        self._running: dict[Any, tuple[Any, Item | None]] = {}
        self._deaths: Counter[tuple[str, int] | None] = Counter()

    def __enter__(self) -> Workers:
        import ray

        if ray.is_initialized():
            raise VideolensError(
                "Ray runs in this process already: end it first, ray.shutdown(), or ask without workers"
            )
        self._ray = ray
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        own = {"address": "local", "num_cpus": self.n, "include_dashboard": False, "object_store_memory": 2**28}
        if self.address is not None:
            _check_answers(self.address)
        # "local", and not what RAY_ADDRESS or a cluster on this machine would have it join
        elsewhere = os.environ.pop("RAY_ADDRESS", None) if self.address is None else None
        try:
            where = own if self.address is None else {"address": self.address}
            ray.init(**where, logging_level="ERROR", log_to_driver=False)
        except Exception as error:  # ray raises bare ones, too
            ray.shutdown()
            if self.address is None:
                raise VideolensError(
                    f"Ray cannot start here ({error}): try again when the machine is less busy, or run without workers"
                ) from error
            raise VideolensError(
                f"ray = {self.address!r}: no cluster can be joined there ({error}): start one (ray start --head), or "
                "leave the address out"
            ) from error
        finally:
            if elsewhere is not None:
                os.environ["RAY_ADDRESS"] = elsewhere
        try:
            self._kind = ray.remote(num_cpus=1, num_gpus=self._gpus(ray.cluster_resources()))(Worker)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def _gpus(self, there: Mapping[str, float]) -> int:
        """How many GPUs a worker has for itself: one, if the model goes on one.

        Raises:
            VideolensError: there are fewer processors or GPUs than workers, so some would wait for ever; or the config
                names one GPU of several.
        """
        device = str(self.config.model.get("device") or "cpu")
        if device.startswith("cuda:"):
            raise VideolensError(f"device {device!r} with workers: each has a GPU of its own, so give device 'cuda'")
        gpus = int(device != "cpu" and there.get("GPU", 0) > 0)
        for kind in ("CPU", "GPU")[: 1 + gpus]:
            if there.get(kind, 0) < self.n:
                raise VideolensError(
                    f"workers = {self.n}, but Ray has {there.get(kind, 0):g} {kind}s, and each worker takes one: take "
                    f"at most {there.get(kind, 0):g}"
                )
        return gpus

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker, _ in self._running.values():
            self._ray.kill(worker)
        self._ray.shutdown()

    def ask(
        self,
        work: Sequence[Item],
        done: Mapping[tuple[str, int], Part],
        keep: Callable[[Chunk, Part, float], None],
        lost: Callable[[Chunk | None], None],
    ) -> None:
        """Have all of it asked.

        Args:
            work: chunks and their experiments, in the order in which one process would ask.
            done: parts that are there, by label and index; `keep` adds to them.
            keep: called with every part as it comes in, in any order, and the seconds since it was given out.
            lost: called with what a worker was asked when it died.

        Raises:
            VideolensError: a worker cannot load what it needs, sees another run than this process does, or three died
                over the same chunk.
        """
        waiting = list(work)
        began: dict[tuple[str, int], float] = {}
        idle: list[Any] = []
        for _ in range(min(self.n, len(work))):
            self._start()
        while waiting or any(item for _, item in self._running.values()):
            while idle and (item := next((each for each in waiting if pictured_before(*each, done) is not None), None)):
                waiting.remove(item)
                worker, (chunk, _) = idle.pop(), item
                began[chunk.label, chunk.index] = time.monotonic()
                self._running[worker.ask.remote(chunk.label, chunk.index, pictured_before(*item, done))] = (
                    worker,
                    item,
                )
            [ref], _ = self._ray.wait(list(self._running), num_returns=1)
            worker, asked = self._running.pop(ref)
            if (found := self._got(ref, asked)) is None:
                lost(asked[0] if asked else None)
                waiting = [asked, *waiting] if asked else waiting
                self._start()
                continue
            idle.append(worker)
            if asked is None and found != self.identity:
                raise VideolensError(
                    "a worker sees another run than this process: its model, data set, config or software differ; give "
                    "all machines of the cluster the same files and versions"
                )
            if asked is not None:
                keep(asked[0], found, time.monotonic() - began[asked[0].label, asked[0].index])

    def _start(self) -> None:
        worker = self._kind.remote(self.config, self.threads, os.getcwd())
        self._running[worker.begin.remote()] = (worker, None)

    def _got(self, ref: Any, asked: Item | None) -> Any:
        """What a worker gave; None: it died, and may be replaced."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise VideolensError(f"a worker cannot do its work: {error.cause}") from error
        except self._ray.exceptions.RayError as error:  # it died, or its machine, or its memory was too little
            what = (asked[0].label, asked[0].index) if asked else None
            self._deaths[what] += 1
            if self._deaths[what] >= _TRIES:
                doing = f"over part {asked[0].index} of {asked[0].label}" if asked else "while they loaded the model"
                raise VideolensError(
                    f"{_TRIES} workers died {doing}: it may need more memory than there is for {self.n} workers; take "
                    "fewer, or run it without workers to see what happens"
                ) from error
            return None


def _check_answers(address: str) -> None:
    """Ray waits minutes for a dead address; a socket tells in seconds."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto", "local": a name that Ray itself looks up
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise VideolensError(
            f"ray = {address!r}: nothing answers there ({error}): start a cluster (ray start --head), or leave the "
            "address out"
        ) from error
