"""A video is opened alone, an archive unpacks within bounds, and what fails leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.benchmarks import entry, write_clip, write_json

import videolens as vl
from videolens.datasets.hub import unpack
from videolens.datasets.shapes import write_shapes
from videolens.errors import DatasetError, VideoError, VideolensError
from videolens.runs.writing import write_atomic
from videolens.video import strict

PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nneighbour.mp4\n#EXT-X-ENDLIST\n",
    "a.mp4": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "a.ffconcat": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "b.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:neighbour.mp4\n#EXT-X-ENDLIST\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="0" mimeType="video/mp4"><BaseURL>neighbour.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
}


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "neighbour.mp4")


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_that_names_others_is_refused(name: str, neighbour: Path) -> None:
    playlist = neighbour.with_name(name)
    playlist.write_text(PLAYLISTS[name])
    read = os.stat(neighbour).st_atime_ns
    with pytest.raises(VideoError, match=name.replace(".", r"\.")):
        vl.Video.from_file(playlist, n_frames=2)
    assert os.stat(neighbour).st_atime_ns == read


@pytest.mark.parametrize("name", ["concat:neighbour.mp4", "file:a.mp4", "a?b.mp4", "a%03d.mp4", "-i.mp4", "pipe:0.mp4"])
def test_a_name_is_nothing_but_a_name(name: str, neighbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(neighbour.parent)
    with pytest.raises(VideoError, match="no such file"):
        vl.Video.from_file(name, n_frames=2)
    neighbour.rename(name)
    assert len(vl.Video.from_file(name, n_frames=2)) == 2
    again = vl.Video.from_file(name, n_frames=2).write(f"again {name}", 2.0)
    assert len(vl.Video.from_file(again, n_frames=2)) == 2


def test_what_does_not_end_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(VideoError, match="no file that can be read to its end"):
            vl.Video.from_file(path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a.mp4",
        "b/../../a.mp4",
        "~/a.mp4",
        "file:a.mp4",
        "concat:a.mp4|b.mp4",
        "http://a/b.mp4",
        "C:a",
    ],
)
def test_a_listing_names_only_what_lies_below_its_folder(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "json" / "action_count.json", [entry(name)])
    with pytest.raises(DatasetError, match=r"entry 0, field 'video': .*leads out of the data set"):
        vl.load_dataset(tmp_path)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_a_picture_that_is_too_large_is_refused(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller bound, so that no picture has to be large."""
    path = write_clip(tmp_path / f"a{ending}")
    assert len(vl.Video.from_file(path, n_frames=2)) == 2
    assert int(strict.STRICT["max_pixels"]) >= 7680 * 4320
    monkeypatch.setitem(strict.STRICT, "max_pixels", "900")
    with pytest.raises(VideoError, match=path.name):
        vl.Video.from_file(path, n_frames=2)


# -- archives


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed, packed.open("zeros", "w") as stream:
        for _ in range(300):
            stream.write(bytes(2**20))
    with pytest.raises(DatasetError, match=r"would unpack to 1 files of 314572800 bytes"):
        unpack(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_archive_that_fills_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a", bytes(1000))
    monkeypatch.setattr("videolens.datasets.hub.disk_usage", lambda path: type("Usage", (), {"free": 999}))
    with pytest.raises(DatasetError, match="unpacks to 1000 bytes, and 999 are free"):
        unpack(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["/etc/a", "../a", "a/../../b", "C:\\a"])
def test_an_archive_that_leads_out_of_itself_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(name, b"x")
    with pytest.raises(DatasetError, match="leads out of it"):
        unpack(tmp_path / "a.zip")


def test_a_member_that_is_unpacked_in_part_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("folder/a", bytes(1000))

    def full(self: Any, member: Any, folder: Path) -> None:
        (folder / "folder").mkdir()
        (folder / member.filename).write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(DatasetError, match=r"No space left on device.*make room"):
        unpack(tmp_path / "a.zip")
    assert not (tmp_path / "folder" / "a").exists()


# -- a full disk


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FFmpeg has written a little, there is no more room."""
    opened = av.open

    class Full:
        def __init__(self, container: Any) -> None:
            self.container = container

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.container.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def mux(self, packets: Any) -> None:
            self.container.mux(packets)
            raise av.error.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(av, "open", lambda path, mode="r", **options: Full(opened(path, mode, **options)))


@pytest.mark.usefixtures("full_disk")
def test_a_clip_that_is_written_in_part_is_taken_away(tmp_path: Path) -> None:
    video = vl.Video.from_array(np.zeros((2, 16, 16, 3), dtype=np.uint8))
    (tmp_path / "there.mp4").write_text("what was there")
    for name in ("new.mp4", "there.mp4"):
        with pytest.raises(VideoError, match=rf"cannot write .*{name}.*make room"):
            video.write(tmp_path / name, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["there.mp4"]
    assert (tmp_path / "there.mp4").read_text() == "what was there"


@pytest.mark.usefixtures("full_disk")
def test_shapes_leave_no_clip_behind(tmp_path: Path) -> None:
    with pytest.raises(VideolensError, match="make room"):
        write_shapes(tmp_path, n=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_written_whole_or_not_at_all_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*a\.json"):
        write_atomic(tmp_path / "a.json", json.dumps([1]).encode())
    assert not list(tmp_path.iterdir())
