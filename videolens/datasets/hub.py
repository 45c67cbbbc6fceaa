"""Data sets of the Hugging Face hub: fetched when the network allows, and their archives unpacked."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from videolens.errors import DatasetError


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
            loose = any(len(PurePosixPath(member.filename).parts) == 1 for member in members)
            folder = archive.with_suffix("") if loose else archive.parent
            for member in members:
                target = folder / member.filename
                if not target.is_file() or target.stat().st_size != member.file_size:
                    packed.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{archive} is damaged ({error}): delete it and load the data set again") from error
    except RuntimeError as error:  # a password, or a way of packing that Python does not know
        raise DatasetError(f"{archive} cannot be unpacked ({error}): unzip it there by another tool") from error
    except OSError as error:
        raise DatasetError(f"{archive} cannot be unpacked beside itself ({error}): make room, or unzip it") from error
