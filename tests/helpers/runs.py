"""Runs that are killed: a process that imports everything once and forks a child per run, which dies when told to.

Starting Python and importing torch costs seconds, forking a process that has done so costs milliseconds. The server is
this file run as a script; it answers one JSON line per JSON line. A kill is SIGKILL, as `kill -9` sends it, either
after a delay or at a step of writing a file:

- "delay": so many seconds after the child began;
- "writing": in the middle of writing a file: half of it is there, under its unfinished name;
- "written": the file is whole, and not yet renamed;
- "renamed": it has its name, which has not reached the disk.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

STEPS = ("writing", "written", "renamed")


@dataclass(frozen=True)
class Kill:
    """When a child is killed. `step`: one of `STEPS`, in the file number `count` whose name contains `file`; or
    "delay", with `seconds`."""

    step: str
    file: str = ""
    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a child ended: `status` 0 if its run finished, −9 if it was killed; what it said; chunks it began to ask."""

    status: int
    said: str
    asked: tuple[str, ...]
    seconds: float


class Server:
    """The process that forks; to be entered."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model

    def __enter__(self) -> Server:
        own = Path(__file__)
        path = os.pathsep.join([str(own.parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, str(own), str(self.folder), self.model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def run(self, config: dict[str, Any], out: Path, kill: Kill | None = None) -> Ended:
        """Run a config in a child; None: undisturbed."""
        request = {"config": config, "out": str(out), "kill": None if kill is None else vars(kill)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        return Ended(found["status"], found["said"], tuple(found["asked"]), found["seconds"])


def _serve(folder: Path, model: str) -> None:
    import torch

    torch.set_num_threads(1)
    import videolens as vl
    import videolens.experiments.accuracy.experiment
    import videolens.experiments.flow.experiment
    import videolens.experiments.logit_lens.experiment
    import videolens.runs

    vl.HookedVideoTransformer.from_pretrained(model)  # whatever else that imports
    gc.freeze()  # or the collector of every child writes to memory that all share
    imported = folder / "imported"
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_child(folder, **json.loads(line))) + "\n")
        sys.stdout.flush()
        if imported.exists():  # by the first run that finished: no other need import it again
            for name in imported.read_text().split():
                if name not in sys.modules:
                    importlib.import_module(name)
            imported.unlink()
            gc.freeze()
    os._exit(0)  # nothing is left to do, and taking torch apart takes seconds


def _child(folder: Path, config: dict[str, Any], out: str, kill: dict[str, Any] | None) -> dict[str, Any]:
    said, asked = folder / "said", folder / "asked"
    for path in (said, asked):
        path.write_text("")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with said.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
                try:
                    before = set(sys.modules)
                    _run(config, out, asked, kill)
                    (folder / "imported").write_text("\n".join(set(sys.modules) - before))
                    status = 0
                except BaseException:
                    traceback.print_exc(file=stream)
        finally:
            os._exit(status)
    if kill is not None and kill["step"] == "delay":
        time.sleep(kill["seconds"])
        os.kill(child, signal.SIGKILL)
    _, code = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(code),
        "said": said.read_text(),
        "asked": asked.read_text().split("\n")[:-1],
        "seconds": time.monotonic() - began,
    }


def _run(config: dict[str, Any], out: str, asked: Path, kill: dict[str, Any] | None) -> None:
    from videolens.runs import runner, writing

    ask_chunk = runner.ask_chunk

    def told(experiment: Any, questions: Any, done: Any, **options: Any) -> Any:
        with asked.open("a") as stream:
            stream.write(f"{experiment.name} {questions[0].id}\n")
        return ask_chunk(experiment, questions, done, **options)

    runner.ask_chunk = told
    if kill is not None and kill["step"] in STEPS:
        writing.os = _Dying(kill)
    runner.run(config, out, progress=False)


class _Dying:
    """The module `os` as `videolens.runs.writing` sees it, that kills its process at a step of a write."""

    def __init__(self, kill: dict[str, Any]) -> None:
        self.kill, self.seen = kill, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, unfinished: Path, path: Path) -> None:
        own = self.kill["file"] in str(path)
        due = own and self.seen == self.kill["count"]
        self.seen += own
        if due and self.kill["step"] == "writing":
            os.truncate(unfinished, unfinished.stat().st_size // 2)
        if due and self.kill["step"] in ("writing", "written"):
            os.kill(os.getpid(), signal.SIGKILL)
        os.replace(unfinished, path)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
