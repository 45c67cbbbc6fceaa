"""Data sets of the Hugging Face hub: fetched when the network allows, and their archives unpacked."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shutil import disk_usage

from videolens.errors import DatasetError

_MOST_MEMBERS, _MOST_TIMES, _ALWAYS = 1_000_000, 20, 2**28
"""Files of an archive; its bytes unpacked by those packed (videos are packed already); bytes that are always fine."""


def is_hub_name(name: str) -> bool:
    """Whether a name reads like one of the hub: "owner/name"."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def fetch(name: str) -> Path:
    """A data set of the hub on this machine: in Hugging Face's own cache, its zip archives unpacked beside themselves.

    A copy that is in the cache is used when the hub cannot be reached. A `DatasetError` says why it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        root = Path(snapshot_download(name, repo_type="dataset"))
    except Exception as error:  # the client's errors differ from version to version, and none of them is ours
        why = str(error).strip().splitlines() or [""]
        raise DatasetError(
            f"{name!r} is no directory here, and cannot be had from the Hugging Face hub "
            f"({type(error).__name__}: {why[0]}): check the name, the network and `hf auth login`; or fetch it where "
            f"there is a network (hf download {name} --repo-type dataset --local-dir DIR) and give load_dataset(DIR)"
        ) from error
    for archive in sorted(root.rglob("*.zip")):
        unpack(archive)
    return root


def unpack(archive: Path) -> None:
    """Unpack a zip archive beside itself; one with loose files on top, into a folder of its name.

    What is there already, whole, is kept. A `DatasetError` if it is damaged, or there is no room or right to write.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [m for m in packed.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            _check_size(archive, members)
            loose = any(len(PurePosixPath(member.filename).parts) == 1 for member in members)
            folder = archive.with_suffix("") if loose else archive.parent
            for member in members:
                target = folder / member.filename
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                try:
                    packed.extract(member, folder)
                except BaseException:  # a full disk, say: a part of a file is taken for none
                    target.unlink(missing_ok=True)
                    raise
    except DatasetError:
        raise
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{archive} is damaged ({error}): delete it and load the data set again") from error
    except RuntimeError as error:  # a password, or a way of packing that Python does not know
        raise DatasetError(f"{archive} cannot be unpacked ({error}): unzip it there by another tool") from error
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise DatasetError(f"{archive} cannot be unpacked beside itself ({error}): make room, or unzip it") from error


def _check_size(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse an archive that unpacks to more than a data set can be, fills the disk, or writes elsewhere."""
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename or ":" in parts[0]:
            raise DatasetError(f"{archive} holds {member.filename!r}, which leads out of it: unzip it by another tool")
    size, packed, room = sum(m.file_size for m in members), archive.stat().st_size, disk_usage(archive.parent).free
    if len(members) > _MOST_MEMBERS or size > _MOST_TIMES * packed + _ALWAYS:
        raise DatasetError(
            f"{archive} has {packed} bytes and would unpack to {len(members)} files of {size} bytes, more than any "
            "data set of videos: unzip it by another tool if you trust it"
        )
    if size > room:
        raise DatasetError(f"{archive} unpacks to {size} bytes, and {room} are free beside it: make room")
