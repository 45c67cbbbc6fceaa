"""A run's directory: who may write in it, and what is in it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TextIO

from pydantic import Field

from videolens.errors import VideolensError, utf8
from videolens.reading import Fields, as_path, fields_from, read_json
from videolens.runs.config import most_threads
from videolens.runs.parts import FORMAT, Chunk
from videolens.runs.writing import LEFTOVER, clear_leftovers, make_directory, write_atomic

LOCK, MANIFEST, CONFIG, LOG = ".videolens-lock", "run.json", "config.yaml", "log.jsonl"
PARTS, RESULTS, SUMMARY, REPORT = "parts", "results", "summary.json", "report.html"


class _Files(Fields):
    files: dict[str, Any]


class _Asked(Fields):
    task: str
    id: str
    digest: str


class _Questions(Fields):
    questions: list[_Asked]


class _Identity(Fields):
    """What a run is of."""

    config: dict[str, Any]
    versions: dict[str, str]
    model: _Files
    dataset: _Questions


class _Manifest(Fields):
    """What a run's description holds."""

    format: Annotated[int, Field(ge=1, le=FORMAT, description="a format that is known")]
    identity: _Identity
    threads: Annotated[int, Field(ge=1, le=max(1024, most_threads()))]
    machine: str


class RunDirectory:
    """A directory that is locked for as long as this is entered.

    The lock is the kernel's (`flock`): it goes with the process that holds it, however that ends. A directory that was
    made for a run which then did not begin is taken away again.

    Raises:
        VideolensError: the path is a file, the directory holds something else than a run, or another process is in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path, "the run's directory")
        self._lock: TextIO | None = None
        self._made = False

    def __enter__(self) -> RunDirectory:
        if self.path.exists() and not self.path.is_dir():
            raise VideolensError(f"{self.path} is a file: give a directory for the run")
        if self.path.is_dir() and not (self.path / MANIFEST).is_file():
            own = (LOCK, f"{LEFTOVER}{MANIFEST}")  # of a run that was killed before it had begun
            if foreign := sorted(path.name for path in self.path.iterdir() if path.name not in own):
                raise VideolensError(
                    f"{self.path} holds something else than a run ({', '.join(foreign[:5])}"
                    f"{', …' if len(foreign) > 5 else ''}): give a new or an empty directory"
                )
        self._made = not self.path.exists()
        self._lock = self._locked()
        clear_leftovers(self.path, *([parts] if (parts := self.path / PARTS).is_dir() else []), *self._labels())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        if not (self.path / MANIFEST).is_file():
            (self.path / LOCK).unlink(missing_ok=True)  # somebody may have taken the whole directory away
            if self._made:
                with suppress(OSError):  # somebody may have put something there
                    self.path.rmdir()
        self._lock.close()
        self._lock = None

    def _labels(self) -> list[Path]:
        parts = self.path / PARTS
        return [path for path in sorted(parts.iterdir()) if path.is_dir()] if parts.is_dir() else []

    def _locked(self) -> TextIO:
        while True:
            make_directory(self.path)
            lock = (self.path / LOCK).open("a+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                who = lock.read().strip() or "another process"
                lock.close()
                raise VideolensError(
                    f"{self.path} is in use by {who}: wait for it, or give another directory"
                ) from None
            # a lock file that was taken away in between locks nothing
            try:
                if os.fstat(lock.fileno()).st_ino == (self.path / LOCK).stat().st_ino:
                    break
            except FileNotFoundError:
                pass
            lock.close()
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        return lock

    # -- what the run is ----------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """What the run in this directory is; None where none has begun.

        Raises:
            VideolensError: the file that says so is not one of a run, or the run was begun by an older version and is
                not finished.
        """
        path = self.path / MANIFEST
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = read_json(path, finite=False, halves=True)
            fields_from(_Manifest, found, "")
        except VideolensError as error:
            raise VideolensError(f"{path} is not the description of a run ({error}): give another directory") from error
        if found["format"] != FORMAT and not self.finished:
            raise VideolensError(
                f"the run in {self.path} was begun by an older version of videolens and is not finished, and its parts "
                "hold less than is needed now: finish it with that version, or give another directory"
            )
        return found

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Say what the run is. From here on the directory is this run's."""
        write_atomic(self.path / MANIFEST, utf8(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"))

    @property
    def finished(self) -> bool:
        """Whether the results are there.

        Raises:
            VideolensError: something is there, but without its summary: a run cannot have left it so.
        """
        results = self.path / RESULTS
        if (results / SUMMARY).is_file():
            return True
        if results.exists() or results.is_symlink():
            raise VideolensError(
                f"{results} is there without its {SUMMARY}: somebody changed it; take it away, and the run makes it "
                "anew from its parts"
            )
        return False

    def part(self, chunk: Chunk) -> Path:
        """Where a part belongs."""
        return self.path / PARTS / chunk.label / f"{chunk.index:05d}.part"

    def log(self, event: str, **about: Any) -> None:
        """Add a line about what happened, with the time: for people, nothing reads it back."""
        line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event} | about, ensure_ascii=False)
        with (self.path / LOG).open("ab") as stream:
            stream.write(utf8(line + "\n"))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Where two mappings differ, field by field, as "dataset.n: 24 there, 30 here"."""
    one, other = _flat(there), _flat(here)
    return [
        f"{name}: {_spelled(one, name)} there, {_spelled(other, name)} here"
        for name in [*one, *(name for name in other if name not in one)]
        if name not in one or name not in other or one[name] != other[name]
    ]


def _flat(content: Any, name: str = "") -> dict[str, Any]:
    if isinstance(content, Mapping) and content:
        return {k: v for key, each in content.items() for k, v in _flat(each, f"{name}.{key}" if name else key).items()}
    if isinstance(content, list) and any(isinstance(each, Mapping) for each in content):
        return {k: v for i, each in enumerate(content) for k, v in _flat(each, f"{name}[{i}]").items()}
    return {name: content}


def _spelled(content: Mapping[str, Any], name: str) -> str:
    if name not in content:
        return "nothing"
    value = content[name]
    return repr(value[:12] + "…" if isinstance(value, str) and len(value) == 64 else value)
