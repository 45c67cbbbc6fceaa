"""Parts of a video are seconds on the file's clock, whatever its rate and wherever it starts."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videolens.errors import VideoError
from videolens.video.sampling import Request, midpoints
from videolens.video.video import Video

SIZE = 32


def encode(path: Path, milliseconds: list[int], *, offset: str = "0", fps: int = 10) -> Path:
    """A small clip whose frames are shown at these times; the grey of each is its number."""
    with av.open(str(path), "w", options={"output_ts_offset": offset}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 12
        for number, stamp in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((SIZE, SIZE, 3), number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seconds_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.array([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])


FAST_THEN_SLOW = [round(i * 1000 / 30) for i in range(150)] + list(range(5000, 15001, 1000))


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize(("start", "end"), [(5, 15), (4.5, 6.2), (0, 5), (9.9, 10.1), (None, 4), (7, None)])
def test_a_part_is_the_frames_on_the_clock_between_start_and_end(tmp_path: Path, kind: str, start, end) -> None:
    path = encode(tmp_path / f"clip.{kind}", FAST_THEN_SLOW, fps=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = Video.from_file(path, start=start, end=end)
    times = seconds_of(path)
    inside = np.flatnonzero((times >= (start or 0)) & (times <= (99 if end is None else end)))
    assert clip.indices.tolist() == midpoints(int(inside[0]), int(inside[-1]), 8)
    assert clip.seconds.tolist() == [times[i] for i in clip.indices.tolist()]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "flv"])
def test_a_picture_that_begins_late(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / f"clip.{kind}", list(range(0, 8000, 100)), offset="4")
    for start, end in ((5, 7), (11, 12.5), (0, 5)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip = Video.from_file(path, start=start, end=end)
        assert all(max(start, 4) <= second <= end for second in clip.seconds.tolist())
        assert clip.n_repeated == 0 and clip.evenly_spaced
    assert Video.from_file(path, start=5, end=7).seconds[0] == pytest.approx(5.1)
    with pytest.raises(VideoError, match=r"between start 1 s and end 3\.5 s.*4\.00 s"):
        Video.from_file(path, start=1, end=3.5)


@pytest.mark.parametrize(("kind", "ms"), [("mp4", 40), ("mp4", 100), ("mkv", 33.3333), ("mkv", 40), ("ts", 40)])
@settings(max_examples=12)
@given(start=st.floats(0, 1.5), length=st.floats(0.01, 1.5), n=st.integers(1, 9))
def test_a_constant_rate_from_0_gives_the_published_frames(
    tmp_path_factory: pytest.TempPathFactory, kind: str, ms: float, start: float, length: float, n: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"constant-{ms}.{kind}"
    if not path.exists():
        encode(path, [round(i * ms) for i in range(round(2000 / ms))], fps=round(1000 / ms))
    end, n_source, fps = min(start + length, 2.9), round(2000 / ms), round(1000 / ms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frames are repeated in short parts
        clip = Video.from_file(path, n_frames=n, start=start, end=end)
    first, last = max(0, round(start * fps)), min(round(end * fps), n_source - 1)
    assert clip.indices.tolist() == midpoints(min(first, last), last, n)


@given(
    steps=st.lists(st.floats(0.01, 2), min_size=1, max_size=30),
    begin=st.floats(0.2, 5),
    start=st.none() | st.floats(0, 20),
    length=st.none() | st.floats(0.01, 20),
)
def test_the_part_of_any_clock(steps: list[float], begin: float, start: float | None, length: float | None) -> None:
    seconds = begin + np.cumsum([0.0, *steps])
    end = None if length is None else (start or 0) + length
    inside = np.flatnonzero((seconds >= (start or 0)) & (seconds <= (np.inf if end is None else end)))
    request = Request(4, start, end, "midpoints", "it")
    if len(inside):
        assert request.part(seconds, 7.0) == (inside[0], inside[-1])
    else:
        with pytest.raises(VideoError, match="no frame of it begins to be shown between"):
            request.part(seconds, 7.0)


# --- spacing by time --------------------------------------------------------------------------------------------------


def test_spacing_by_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", FAST_THEN_SLOW, fps=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = Video.from_file(path, n_frames=4, start=0, end=12, sampling="time")
    assert clip.seconds.tolist() == pytest.approx([1.5, 4.5, 7, 10], abs=0.034)  # on view at 1.5, 4.5, 7.5, 10.5
    with pytest.warns(UserWarning, match="unevenly spaced"):
        assert Video.from_file(path, n_frames=4, start=0, end=12).seconds.max() < 6


@given(n=st.integers(1, 12), n_source=st.integers(1, 100), fps=st.floats(0.5, 60))
def test_at_a_constant_rate_time_and_numbers_agree(n: int, n_source: int, fps: float) -> None:
    seconds = np.arange(n_source) / fps
    chosen = Request(n, None, None, "time", "it")(seconds, fps, n_source / fps).numbers
    exact = [(i + 0.5) / n * n_source for i in range(n)]
    assert all(
        number <= place + 1e-6 and place - 1e-6 <= number + 1 for number, place in zip(chosen, exact, strict=True)
    )


# --- what is said -----------------------------------------------------------------------------------------------------


def test_uneven_and_repeated_frames_are_said(tmp_path: Path) -> None:
    uneven = encode(tmp_path / "uneven.mp4", FAST_THEN_SLOW, fps=30)
    with pytest.warns(UserWarning, match=r"uneven\.mp4: frames are unevenly spaced, 0\.033\d* to 1 s apart"):
        assert not Video.from_file(uneven).evenly_spaced
    short = encode(tmp_path / "short.mp4", [0, 100, 200])
    with pytest.warns(UserWarning, match=r"5 of 8 frames are repeats \(the part has 3") as caught:
        clip = Video.open(short)
        assert clip.n_repeated == 5 and clip.evenly_spaced
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="the array: 2 of 4 frames are repeats"):
        assert Video.from_array(np.zeros((2, 4, 4, 3), np.uint8), n_frames=4).n_repeated == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Video.from_file(short, sampling=[1, 1]).n_repeated == 1  # as asked
        even = Video.from_file(encode(tmp_path / "even.mkv", [round(i * 1000 / 30) for i in range(30)], fps=30))
        assert even.evenly_spaced and even.n_repeated == 0
        Video.from_file(uneven, sampling="time")
