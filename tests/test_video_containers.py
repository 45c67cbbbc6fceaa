"""Which frame is which, in every container, coding and order of storing: compared with decoding everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videolens.errors import VideoError
from videolens.video.sampling import midpoints
from videolens.video.video import Video

N, HEIGHT, WIDTH = 24, 48, 64


def picture(number: int) -> np.ndarray:
    """A frame unlike every other, with fine detail so that codecs have something to store."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plain = np.stack([x * 2 + number * 9, y * 4 + number * 5, x + y + number * 7], -1) % 256
    grain = np.random.default_rng(number).integers(0, 64, (HEIGHT, WIDTH, 1))
    return (plain * 3 // 4 + grain).astype(np.uint8)


def encode(path: Path, codec: str, *, n: int = N, b: int = 0, fps: int = 25, file: Any = None, **options: str) -> Path:
    """Write frames 0 … n − 1 with up to `b` B-frames in a row, a key frame every eight."""
    quick = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"preset": "12"}}
    quick |= {name: {"deadline": "realtime", "cpu-used": "8"} for name in ("libvpx", "libvpx-vp9")}
    with av.open(str(path), "w", options=file or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=quick.get(codec, {}) | options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 8, b
        for i in range(n):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Every frame of a file and its time (0 if it has none), from decoding it from beginning to end."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [each.to_ndarray(format="rgb24") for each in frames], [float((f.pts or 0) * f.time_base) for f in frames]


OPEN = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:scenecut=0:bframes=2"}
FILES: dict[str, dict[str, Any]] = {
    **{f"h264-{b}.{kind}": {"codec": "libx264", "b": b} for kind in ("mp4", "mkv", "avi", "ts", "flv") for b in (0, 2)},
    **{f"mpeg4-{b}.{kind}": {"codec": "mpeg4", "b": b} for kind in ("mp4", "mkv", "avi", "ts") for b in (0, 2)},
    **{f"hevc-{b}.{kind}": {"codec": "libx265", "b": b} for kind in ("mp4", "mkv", "ts") for b in (0, 2)},
    **{f"mpeg2-{b}.{kind}": {"codec": "mpeg2video", "b": b} for kind in ("mp4", "mkv", "avi", "ts") for b in (0, 2)},
    **{f"mjpeg.{kind}": {"codec": "mjpeg"} for kind in ("mp4", "mkv", "avi")},
    **{f"vp9.{kind}": {"codec": "libvpx-vp9"} for kind in ("mp4", "mkv", "webm", "avi")},
    **{f"vp8.{kind}": {"codec": "libvpx"} for kind in ("mkv", "webm", "avi")},
    **{f"av1.{kind}": {"codec": "libsvtav1"} for kind in ("mp4", "mkv", "webm")},
    "flv.flv": {"codec": "flv"},
    "wmv2.avi": {"codec": "wmv2"},
    "xvid.avi": {"codec": "mpeg4", "b": 2, "vtag": "XVID"},
    "open-gop.mp4": {"codec": "libx264", **OPEN},
    "open-gop.mkv": {"codec": "libx264", **OPEN},
    "refresh.mp4": {"codec": "libx264", "x264-params": "intra-refresh=1:keyint=8:bframes=0"},
    "refresh.ts": {"codec": "libx264", "x264-params": "intra-refresh=1:keyint=8:bframes=0"},
    "vp9-hidden.webm": {"codec": "libvpx-vp9", "deadline": "good", "lag-in-frames": "12", "auto-alt-ref": "1"},
    "vp8-hidden.webm": {"codec": "libvpx", "deadline": "good", "lag-in-frames": "12", "auto-alt-ref": "1"},
    "fragmented.mp4": {"codec": "libx264", "b": 2, "file": {"movflags": "frag_keyframe+empty_moov"}},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: encode(folder / name, **given) for name, given in FILES.items()}


@pytest.fixture(scope="module")
def whole(clips: dict[str, Path]) -> dict[str, tuple[list[np.ndarray], list[float]]]:
    return {name: decode_all(path) for name, path in clips.items()}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=8)
@given(asked=st.lists(st.integers(0, N - 1), min_size=1, max_size=5))
def test_every_frame_is_that_of_decoding_everything(clips: Any, whole: Any, name: str, asked: list[int]) -> None:
    frames, _ = whole[name]
    assert len(frames) == N
    clip = Video.from_file(clips[name], sampling=asked)
    assert clip.n_source_frames == N and clip.indices.tolist() == asked
    for frame, number in zip(clip.frames.numpy(), asked, strict=True):
        assert np.array_equal(frame, frames[number])


@pytest.mark.parametrize("name", FILES)
def test_every_frame_asked_for_alone(clips: Any, whole: Any, name: str) -> None:
    frames, times = whole[name]
    # a broadcast's clock starts anywhere; an AVI has none, and decoding gives the times of storing
    origin = times[0] if name.endswith((".ts", ".avi")) else 0
    for number in range(0, N, 3):
        clip = Video.from_file(clips[name], sampling=[number])
        assert np.array_equal(clip.frames[0].numpy(), frames[number]), number
        assert float(clip.seconds[0]) == pytest.approx(times[number] - origin, abs=1e-9)


# --- damaged clips are refused, whole ones are not --------------------------------------------------------------------

DAMAGED = ["h264-2.mp4", "h264-2.mkv", "hevc-2.mp4", "mpeg4-2.mp4", "mpeg2-2.ts", "xvid.avi", "wmv2.avi", "flv.flv"]
DAMAGED += ["mjpeg.mp4", "vp9.webm", "vp9.mp4", "vp9-hidden.webm"]


def flip(path: Path, to: Path, n: int, seed: int, places: slice = slice(None)) -> Path:
    """A copy with bytes of the stored pictures flipped, none of the container's."""
    data, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size][places]
    # whatever surrounds them, packets stand in a file as they are, but for MPEG-TS, which cuts them into pieces
    most = 100 if path.suffix == ".ts" else None
    inside = [data.find(packet[:100]) + np.arange(len(packet[:most])) for packet in packets]
    for at in random.choice(np.concatenate(inside), n):
        data[at] ^= random.integers(1, 256)
    to.write_bytes(data)
    return to


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("seed", range(3))
def test_damaged_pictures_are_an_error(clips: Any, tmp_path: Path, name: str, seed: int) -> None:
    with pytest.raises(VideoError, match=r"damaged|truncated|without a single"):
        Video.from_file(flip(clips[name], tmp_path / name, 400, seed))


@pytest.mark.parametrize("name", ["vp9.webm", "vp9.mp4", "vp9-hidden.webm"])
@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_byte_of_vp9_is_an_error(clips: Any, tmp_path: Path, name: str, seed: int) -> None:
    with pytest.raises(VideoError, match="damaged"):
        Video.from_file(flip(clips[name], tmp_path / name, 1, seed))


@pytest.mark.parametrize("name", ["h264-2.mp4", "h264-2.mkv", "hevc-2.mp4", "vp9.webm", "av1.mp4"])
def test_damage_elsewhere_does_not_matter(clips: Any, whole: Any, tmp_path: Path, name: str) -> None:
    path = flip(clips[name], tmp_path / name, 400, 0, places=slice(17, None))  # behind the last key frame
    assert np.array_equal(Video.from_file(path, sampling=[0]).frames[0].numpy(), whole[name][0][0])
    with pytest.raises(VideoError, match="damaged"):
        Video.from_file(path, sampling=[0, N - 1])


OFFSETS = ["-0.5", "0", "1", "30000", "95442.5"]  # the clock of MPEG-TS has 33 bits and begins anew at 95443.7 s
KINDS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "ts": "libx264"}
KINDS |= {"flv": "libx264", "avi": "mpeg4", "mpg": "mpeg2video"}


STARTS = [(kind, at) for kind in KINDS for at in OFFSETS if kind != "avi" or float(at) < 1000]  # FFmpeg refuses those
NEGATIVE = {"avoid_negative_ts": "disabled"}  # written as it is, where a container can store it: FLV cannot


@pytest.mark.parametrize(("kind", "offset"), STARTS)
def test_whole_clips_are_read_wherever_their_clock_starts(tmp_path: Path, kind: str, offset: str) -> None:
    path = tmp_path / f"clip.{kind}"
    encode(path, KINDS[kind], b=2, file={"output_ts_offset": offset} | (NEGATIVE if kind != "flv" else {}))
    frames, _ = decode_all(path)
    clip = Video.from_file(path)
    assert clip.n_source_frames == len(frames) and len(frames) >= N - 13  # an mp4 hides what lies before 0
    assert clip.indices.tolist() == midpoints(0, len(frames) - 1, 8)
    for frame, number in zip(clip.frames.numpy(), clip.indices.tolist(), strict=True):
        assert np.array_equal(frame, frames[number])
    steps = np.diff(clip.seconds.numpy()) * 25
    assert np.allclose(steps, np.diff(clip.indices.numpy()), atol=0.05)


def test_a_broadcast_cut_anywhere_is_read(clips: Any, whole: Any, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ts"
    cut.write_bytes(clips["h264-2.ts"].read_bytes()[188 * 40 :])  # begins amid pictures that refer to others
    frames, _ = decode_all(cut)
    assert 4 < len(frames) < N
    clip = Video.from_file(cut)
    for frame, number in zip(clip.frames.numpy(), clip.indices.tolist(), strict=True):
        assert np.array_equal(frame, frames[number])


def test_metadata_in_another_alphabet(tmp_path: Path) -> None:
    path = encode(tmp_path / "named.mkv", "libx264")
    with av.open(str(tmp_path / "title.mkv"), "w") as container:
        container.metadata["title"] = "Gruesse"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "title.mkv").read_bytes()
    path.write_bytes(data.replace(b"Gruesse", "Grüße1".encode("latin-1") + b"!"))
    assert len(Video.from_file(path, n_frames=2)) == 2
