"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

LEFTOVER = ".unfinished-"
"""What names of unfinished files and folders begin with."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens and whenever, it is there whole or not at all.

    1. Write it under another name in the same folder, and have it reach the disk.
    2. Rename it, which is one step.
    3. Have the rename reach the disk.
    """
    # 1.
    unfinished = path.with_name(f"{LEFTOVER}{path.name}")
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:  # a full disk does not say by itself which file it was
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    # 2.
    os.replace(unfinished, path)
    # 3.
    _reach_disk(path.parent)


def make_directory(path: Path) -> None:
    """Make a folder, and what it lies in, and have their names reach the disk: what is written into it counts on it."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        _reach_disk(each.parent)


def commit_directory(unfinished: Path, path: Path) -> None:
    """Give a folder that was filled under another name its own: the same three steps for all that is in it."""
    for inner in sorted(unfinished.rglob("*")):
        _reach_disk(inner)
    _reach_disk(unfinished)
    os.replace(unfinished, path)
    _reach_disk(path.parent)


def clear_leftovers(*directories: Path) -> list[Path]:
    """Take away what an interrupted write has left in these folders, and say what that was."""
    found = [path for directory in directories for path in sorted(directory.glob(f"{LEFTOVER}*"))]
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def _reach_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
