"""Videos: real files in several containers, read frame by frame and compared with decoding them whole."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videolens.errors import VideoError, VideolensError
from videolens.video import decoding, listing
from videolens.video import files as files_module
from videolens.video.sampling import Request, midpoints, stride, uniform
from videolens.video.video import Video

BITS = 12
HEIGHT, WIDTH = 32, 8 * BITS


def numbered(number: int) -> np.ndarray:
    """A frame that shows its number as twelve black or white bars."""
    bars = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.ascontiguousarray(np.broadcast_to(np.repeat(bars, 8)[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8))


def number_of(frame: torch.Tensor) -> int:
    """The number that a frame shows."""
    bars = frame.double().mean(dim=(0, 2)).reshape(BITS, 8)[:, 2:6].mean(dim=1)
    return sum(1 << bit for bit, value in enumerate(bars.tolist()) if value > 128)


def encode(
    path: Path,
    n: int = 40,
    *,
    fps: int = 8,
    codec: str = "libx264",
    gop: int = 12,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    stored: Callable[[int], np.ndarray] = numbered,
    rotation: float | None = None,
    sound: float | None = None,
) -> Path:
    """Write a video by hand, independently of `Video.write`. `pts` are in 1/90 s."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = stored(0).shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 90)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=16_000) if sound else None
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(stored(i), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 90)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound and audio:
            container.mux(audio.encode(silence(sound)))
            container.mux(audio.encode(None))
    return path


def silence(seconds: float) -> av.AudioFrame:
    """A stretch of sound at 16 kHz."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, int(16_000 * seconds)), np.int16), format="s16", layout="mono")
    frame.sample_rate = 16_000
    return frame


def times(path: Path) -> list[float]:
    """The time of every frame, from decoding the whole file in order."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


UNEVEN = np.cumsum(1 + np.arange(40) % 5 * 7).tolist()
FILES: dict[str, dict] = {
    "b-frames.mp4": {},
    "fragmented.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "index-first.mp4": {"options": {"movflags": "faststart"}},
    "uneven.mp4": {"pts": UNEVEN},
    "plain.mkv": {},
    "uneven.mkv": {"pts": UNEVEN},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "old.avi": {"codec": "mpeg4"},
    "broadcast.ts": {},
    "every-frame-a-key.mp4": {"gop": 1},
    "film.mov": {"fps": 24},
    "with-sound.mp4": {"sound": 5.0},
    "with-longer-sound.mkv": {"sound": 9.0},
    "with-sound.ts": {"sound": 3.0},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: encode(folder / name, **settings) for name, settings in FILES.items()}


# --- frames and times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_frames_and_times_equal_those_of_decoding_everything(files: dict[str, Path], name: str) -> None:
    clip = Video.from_file(files[name], n_frames=8)
    assert clip.n_source_frames == 40
    assert clip.indices.tolist() == midpoints(0, 39, 8)
    assert [number_of(frame) for frame in clip.frames] == clip.indices.tolist()
    origin = times(files[name])[0] if name.endswith(".ts") else 0  # a broadcast's clock starts anywhere
    expected = [times(files[name])[i] - origin for i in clip.indices.tolist()]
    assert clip.seconds.tolist() == pytest.approx(expected, abs=1e-12)
    assert clip.frames.dtype == torch.uint8 and clip.frames.shape == (8, HEIGHT, WIDTH, 3)
    assert clip.seconds.dtype == torch.float64 and clip.indices.dtype == torch.int64


@pytest.mark.parametrize("name", FILES)
def test_mean_rate_and_duration(files: dict[str, Path], name: str) -> None:
    clip, at = Video.from_file(files[name]), times(files[name])
    assert clip.fps == pytest.approx(39 / (at[-1] - at[0]), rel=0.01)
    origin = at[0] if name.endswith(".ts") else 0
    assert clip.duration == pytest.approx(at[-1] - origin + 1 / clip.fps, abs=1e-9)


@pytest.mark.parametrize("name", ["b-frames.mp4", "uneven.mkv", "broadcast.ts", "vp9.webm"])
@given(wanted=st.lists(st.integers(0, 39), min_size=1, max_size=6))
def test_any_frames_in_any_order(files: dict[str, Path], name: str, wanted: list[int]) -> None:
    clip = Video.from_file(files[name], sampling=wanted)
    assert clip.indices.tolist() == wanted == [number_of(frame) for frame in clip.frames]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_a_long_file_is_sought_not_decoded(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, 3000, fps=25, gop=50, options={"preset": "ultrafast"})
    clip = Video.from_file(path, n_frames=4)
    assert [number_of(frame) for frame in clip.frames] == midpoints(0, 2999, 4)
    assert isinstance(clip.source, decoding.Clip)
    assert clip.source.n_decoded <= (4 * 150 if name.endswith(".ts") else 4 * 50)
    one = Video.from_file(path, sampling=[2950])
    assert number_of(one.frames[0]) == 2950


@pytest.mark.parametrize("wrong", [1, 7, 10_000_000])
def test_a_wrong_list_of_frames_is_noticed(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    def shifted(*file: Any) -> listing.FrameList:
        right = listing.list_from_decoding(*file)
        return replace(right, pts=right.pts + wrong, counted=False)

    _, packets, everything = listing.LISTINGS
    for listings in [(shifted, packets), (shifted, lambda *_: None, everything)]:
        monkeypatch.setattr(listing, "LISTINGS", listings)
        clip = Video.from_file(files["b-frames.mp4"])
        assert [number_of(frame) for frame in clip.frames] == midpoints(0, 39, 8)
    monkeypatch.setattr(listing, "LISTINGS", (shifted,))
    fails(files["b-frames.mp4"], "do not come at the times")


# --- sampling ---------------------------------------------------------------------------------------------------------


@given(n_source=st.integers(1, 500), n=st.integers(1, 32), fps=st.floats(1, 60), data=st.data())
def test_midpoints_follow_the_published_formula(n_source: int, n: int, fps: float, data: st.DataObject) -> None:
    duration = n_source / fps
    start = data.draw(st.floats(0, duration * 0.99))
    end = data.draw(st.floats(start, duration).filter(lambda end: end > start))
    first, last = max(0, round(start * fps)), min(round(end * fps), n_source - 1)
    segment = (last - first) / n
    chosen = Request(n, start, end, "midpoints", "it")(np.arange(n_source) / fps, fps, duration).numbers
    if first <= last:
        assert chosen == [int(first + segment / 2 + round(segment * i)) for i in range(n)]
    assert len(chosen) == n and all(0 <= i < n_source for i in chosen)


@given(n_source=st.integers(1, 200), n=st.integers(1, 32))
def test_every_sampling_gives_n_frames_of_the_video_in_order(n_source: int, n: int) -> None:
    for sampling in (midpoints, uniform, stride):
        chosen = sampling(0, n_source - 1, n)
        assert len(chosen) == n and chosen == sorted(chosen) and 0 <= chosen[0] <= chosen[-1] < n_source


def test_samplings_by_hand() -> None:
    assert midpoints(0, 16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert uniform(0, 16, 5) == [0, 4, 8, 12, 16]
    assert stride(0, 16, 4) == [0, 4, 8, 12]
    assert stride(0, 2, 5) == [0, 1, 2, 2, 2]


def test_part_of_a_video(files: dict[str, Path]) -> None:
    clip = Video.from_file(files["b-frames.mp4"], n_frames=4, start=1.0, end=3.0)
    assert clip.indices.tolist() == midpoints(8, 24, 4)
    assert [number_of(frame) for frame in clip.frames] == clip.indices.tolist()
    assert Video.from_file(files["b-frames.mp4"], start=4.0, end=5.4).indices.max() < 40  # ends a little late


def test_own_sampling(files: dict[str, Path]) -> None:
    ends = Video.from_file(files["b-frames.mp4"], n_frames=2, sampling=lambda first, last, n: [first, last])
    assert ends.indices.tolist() == [0, 39]
    assert Video.from_file(files["b-frames.mp4"], sampling="uniform", n_frames=3).indices.tolist() == [0, 19, 39]


def test_too_few_frames_are_repeated_and_say_so(tmp_path: Path) -> None:
    clip = Video.from_file(encode(tmp_path / "short.mp4", 3), n_frames=8)
    assert len(clip) == 8 and len(set(clip.indices.tolist())) < 8
    assert [number_of(frame) for frame in clip.frames] == clip.indices.tolist()
    single = Video.from_file(encode(tmp_path / "single.mp4", 1), n_frames=4)
    assert single.indices.tolist() == [0, 0, 0, 0]


# --- rotation ---------------------------------------------------------------------------------------------------------


def corner(_: int = 0) -> np.ndarray:
    """White in the top left corner, dark elsewhere, not square."""
    frame = np.full((32, 64, 3), 20, np.uint8)
    frame[:16, :16] = 235
    return frame


@pytest.mark.skipif(not hasattr(av.video.stream.VideoStream, "set_display_rotation"), reason="needs PyAV 17 or later")
@pytest.mark.parametrize("name", ["turned.mp4", "turned.mkv"])
@pytest.mark.parametrize("anticlockwise", [0, 90, 180, 270])
def test_rotation_in_the_file_is_honoured(tmp_path: Path, name: str, anticlockwise: int) -> None:
    clip = Video.from_file(encode(tmp_path / name, 3, stored=corner, rotation=anticlockwise), n_frames=2)
    expected = np.rot90(corner(), anticlockwise // 90).astype(float)
    assert clip.frames.shape[1:] == expected.shape
    assert np.abs(clip.frames[0].numpy() - expected).mean() < 3
    assert clip.rotation == (360 - anticlockwise) % 360


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0], [0, 1]], lambda image: image),
        ([[-1, 0], [0, 1]], np.fliplr),
        ([[1, 0], [0, -1]], np.flipud),
        ([[0, 1], [-1, 0]], lambda image: np.rot90(image, -1)),
        ([[0, -1], [1, 0]], np.rot90),
        ([[0, 1], [1, 0]], lambda image: image.transpose(1, 0, 2)),
    ],
    ids=["as it is", "mirrored", "upside down", "clockwise", "anticlockwise", "transposed"],
)
def test_display_matrices(matrix: list[list[int]], expected: Callable[[np.ndarray], np.ndarray]) -> None:
    assert np.array_equal(decoding.upright(corner(), np.array(matrix, float)), expected(corner()))


# --- bad input --------------------------------------------------------------------------------------------------------


def fails(path: Path | str, *said: str, **options: object) -> None:
    with pytest.raises(VideolensError) as caught:
        Video.from_file(path, **options)
    for words in (*said, str(path)):
        assert words in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    fails(tmp_path / "none.mp4", "no such file")
    fails(tmp_path, "directory")
    (tmp_path / "empty.mp4").touch()
    fails(tmp_path / "empty.mp4", "zero bytes")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.mkv", "text"])
def test_text_is_not_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Not a video at all.\n" * 50)
    fails(tmp_path / name, "not a video")


def test_noise_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    fails(tmp_path / "noise.mp4", "not a video")


def test_a_picture_is_not_a_video(tmp_path: Path) -> None:
    av.VideoFrame.from_ndarray(corner(), format="rgb24").save(str(tmp_path / "still.png"))
    fails(tmp_path / "still.png", "not a video")


@pytest.mark.parametrize(("name", "codec"), [("sound.m4a", "aac"), ("sound.wav", "pcm_s16le"), ("sound.mp4", "aac")])
def test_sound_alone(tmp_path: Path, name: str, codec: str) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=16_000)
        container.mux(stream.encode(silence(1)))
        container.mux(stream.encode(None))
    fails(tmp_path / name, "no video stream, only audio")


def test_a_cover_picture_is_not_a_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=16_000)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(corner(), format="rgb24")))
        container.mux(cover.encode(None))
        container.mux(sound.encode(silence(1)))
        container.mux(sound.encode(None))
    fails(tmp_path / "song.mp4", "no video stream, only audio, a cover picture")


@pytest.mark.parametrize(
    "name", ["b-frames.mp4", "index-first.mp4", "uneven.mp4", "fragmented.mp4", "plain.mkv", "vp9.webm", "old.avi"]
)
@pytest.mark.parametrize("kept", [0.02, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_truncated_files(files: dict[str, Path], tmp_path: Path, name: str, kept: float) -> None:
    whole = files[name].read_bytes()
    cut = tmp_path / name
    cut.write_bytes(whole[: int(len(whole) * kept)])
    for sampling in ("midpoints", [0]):  # also when the frames asked for are all there
        with pytest.raises(VideoError, match=r"truncated|not a video|damaged|without a single frame"):
            Video.from_file(cut, sampling=sampling)
    if kept >= 0.2 and name.endswith("mp4"):
        fails(cut, "truncated")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 9.0, "end": 10.0}, "lasts 5.00 s"),
        ({"start": 1.0, "end": 60.0}, "lasts 5.00 s"),
        ({"start": 5.0}, "lasts 5.00 s"),
        ({"start": -1.0, "end": 1.0}, "before"),
        ({"start": 2.0, "end": 2.0}, "not before end"),
        ({"start": 3.0, "end": 2.0}, "not before end"),
        ({"start": float("nan")}, "start is nan"),
        ({"end": 0.0}, "end"),
        ({"n_frames": 0}, "n_frames = 0: give a whole number from 1"),
        ({"n_frames": -3}, "n_frames = -3: give a whole number from 1"),
        ({"sampling": [3, 40]}, "from 0 to 39"),
        ({"sampling": []}, "frames []"),
    ],
)
def test_bad_requests(files: dict[str, Path], options: dict, said: str) -> None:
    fails(files["b-frames.mp4"], said, **options)


def test_unknown_sampling_lists_the_known(files: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="did you mean 'midpoints'"):
        Video.from_file(files["b-frames.mp4"], sampling="midpoint")


# --- arrays, laziness, writing ----------------------------------------------------------------------------------------


def test_from_array() -> None:
    frames = np.stack([numbered(i) for i in range(17)])
    whole = Video.from_array(frames, fps=8)
    assert whole.indices.tolist() == list(range(17)) and whole.seconds.tolist() == [i / 8 for i in range(17)]
    assert np.array_equal(whole.frames.numpy(), frames) and whole.path is None and whole.duration == 17 / 8
    eight = Video.from_array(torch.from_numpy(frames), fps=8, n_frames=8)
    assert eight.indices.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    frames[:] = 0
    assert number_of(whole.frames[3]) == 3


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 4, 4, 3)), np.zeros((2, 3, 4, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_bad_arrays(frames: np.ndarray) -> None:
    with pytest.raises(VideoError, match="shape"):
        Video.from_array(frames)
    with pytest.raises(VideoError, match="fps"):
        Video.from_array(np.zeros((2, 4, 4, 3), np.uint8), fps=0)


def test_open_reads_nothing_until_it_is_looked_at(tmp_path: Path, files: dict[str, Path]) -> None:
    later = Video.open(tmp_path / "later.mp4").reversed()
    with pytest.raises(VideoError, match="no such file"):
        _ = later.frames
    encode(tmp_path / "later.mp4", 20)
    assert [number_of(frame) for frame in later.frames] == midpoints(0, 19, 8)[::-1]
    encode(tmp_path / "later.mp4", 30, gop=6)
    assert later.n_source_frames == 30  # a file that was replaced is read again
    with pytest.raises(VideoError, match="n_frames = 0: give a whole number from 1"):
        Video.open(tmp_path / "never.mp4", n_frames=0)
    copy = pickle.loads(pickle.dumps(later))
    assert torch.equal(copy.frames, later.frames)


def test_only_so_many_clips_are_remembered(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(path: Path, *asked: Any) -> decoding.Clip:
        reads.append(path)
        return decoding.read_clip(path, *asked)

    monkeypatch.setattr(files_module, "read_clip", counted)
    monkeypatch.setattr(files_module._recent, "room", 2 * 8 * HEIGHT * WIDTH * 3)
    files_module._recent.clear()
    clips = [Video.open(files[name]) for name in ("b-frames.mp4", "plain.mkv", "vp9.webm")]
    for clip in (*clips[:2], *clips[:2]):
        assert len(clip.frames) == len(clip)
    assert len(reads) == 2
    assert len(clips[2]) == 8 and len(clips[1]) == 8 and len(reads) == 3
    assert len(clips[0]) == 8 and len(reads) == 4


@pytest.mark.parametrize("shape", [(48, 64), (47, 63)])
def test_written_files_come_back(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width]
    frames = np.stack([np.stack([x * 3, y * 4, 0 * x + 20 * i], -1).astype(np.uint8) for i in range(8)])
    clip = Video.from_array(frames, fps=8)
    path = clip.write(tmp_path / "out.mp4")
    again = Video.from_file(path, n_frames=8, sampling="uniform")
    assert again.frames.shape == clip.frames.shape and torch.equal(again.seconds, clip.seconds)
    assert (again.frames.double() - clip.frames.double()).abs().mean() < 2
    for n in range(10):  # on a heap that is never quite the same
        _ = [np.random.default_rng(n).bytes(50_000 * i) for i in range(20)]
        assert clip.write(tmp_path / "again.mp4", fps=8).read_bytes() == path.read_bytes()
    assert Video.from_file(clip.write(tmp_path / "slow.mp4", fps=2)).duration == 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_writing_elsewhere(tmp_path: Path) -> None:
    clip = Video.from_array(np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(VideoError, match="no such folder"):
        clip.write(tmp_path / "none" / "out.mp4")
    with pytest.raises(VideoError, match="fps"):
        clip.write(tmp_path / "out.mp4", fps=0)
    with pytest.raises(VideoError, match=r"\.mp4"):
        clip.write(tmp_path / "out.unknown")
