"""Which pictures of a file are given: its best stream, as it is stored, in the colours that it states."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from videolens.errors import VideoError
from videolens.video.video import Video

SMALL, LARGE = (32, 32), (64, 96)  # height and width


def write(path: Path, *sizes: tuple[int, int], n: int = 5, cover: bool = False) -> Path:
    """One video stream for each size, each of an even grey: 50, 100, …"""
    with av.open(str(path), "w") as container:
        streams = []
        for i, (height, width) in enumerate(sizes):
            still = cover and i == 0
            stream = container.add_stream("mjpeg" if still else "mpeg4", rate=10)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuvj420p" if still else "yuv420p"
            if still:
                stream.disposition = av.stream.Disposition.attached_pic
            streams.append(stream)
        for number in range(n):
            for i, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
                if number == 0 or not (cover and i == 0):
                    pixels = np.full((*size, 3), 50 * (i + 1), np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi"])
@pytest.mark.parametrize("sizes", [(SMALL, LARGE), (LARGE, SMALL), (SMALL, LARGE, SMALL)])
def test_a_preview_is_not_the_video(tmp_path: Path, kind: str, sizes: tuple) -> None:
    clip = Video.from_file(write(tmp_path / f"clip.{kind}", *sizes), n_frames=2)
    assert clip.frames.shape[1:3] == LARGE
    assert abs(clip.frames.double().mean() - 50 * (sizes.index(LARGE) + 1)) < 4


def test_a_cover_is_not_the_video(tmp_path: Path) -> None:
    clip = Video.from_file(write(tmp_path / "clip.mp4", (128, 128), SMALL, cover=True), n_frames=2)
    assert clip.frames.shape[1:3] == SMALL and clip.n_source_frames == 5


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_are_said(tmp_path: Path, kind: str, turned: bool) -> None:
    path = tmp_path / f"clip.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *LARGE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        if turned:
            stream.set_display_rotation(90)
        for number in range(5):
            pixels = np.full((*LARGE, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    aspect = 11 / 16 if turned else 16 / 11
    with pytest.warns(UserWarning, match=f"pixels are {aspect:.3g} times as wide as high"):
        clip = Video.from_file(path, n_frames=2)
    assert clip.pixel_aspect == pytest.approx(aspect)
    assert tuple(clip.frames.shape[1:3]) == (LARGE[::-1] if turned else LARGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Video.from_file(write(tmp_path / "square.mp4", SMALL), n_frames=2).pixel_aspect == 1


# --- colours ----------------------------------------------------------------------------------------------------------

ORANGE = (230, 120, 40)
KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def stored(matrix: str) -> np.ndarray:
    """Orange as Y, Cb and Cr of limited range, by the definition of a matrix."""
    (kr, kb), (r, g, b) = KR_KB[matrix], np.array(ORANGE) / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    return np.array([16 + 219 * y, 128 + 112 * (b - y) / (1 - kb), 128 + 112 * (r - y) / (1 - kr)])


def coloured(path: Path, matrix: str, *, tag: int | None, size: tuple[int, int] = (64, 96)) -> Path:
    """An orange clip whose colours are stored by a matrix, which its tag states or not."""
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        if tag is not None:
            stream.codec_context.colorspace = tag
        for _ in range(2):
            planes = np.broadcast_to(np.round(stored(matrix))[:, None, None], (3, height, width)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
            if tag is not None:
                frame.colorspace = tag
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def is_orange(clip: Video) -> bool:
    return bool((clip.frames[0, 20, 20].double() - torch.tensor(ORANGE)).abs().max() <= 2.5)


@pytest.mark.parametrize(("matrix", "tag"), [("bt601", 6), ("bt601", 5), ("bt709", 1)])
def test_colours_are_read_as_the_file_states(tmp_path: Path, matrix: str, tag: int) -> None:
    clip = Video.from_file(coloured(tmp_path / "clip.mp4", matrix, tag=tag), n_frames=1)
    assert clip.colour_matrix == matrix and is_orange(clip)


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
def test_colours_without_a_tag_are_bt601_and_the_other_is_offered(tmp_path: Path, size: tuple[int, int]) -> None:
    path = coloured(tmp_path / "clip.mp4", "bt709", tag=None, size=size)
    plain = Video.from_file(path, n_frames=1)
    assert plain.colour_matrix == "bt601" and not is_orange(plain)
    with av.open(str(path)) as container:  # as the loaders that models are trained with
        assert np.array_equal(plain.frames[0].numpy(), next(container.decode(video=0)).to_ndarray(format="rgb24"))
    other = Video.open(path, n_frames=1, colour_matrix="bt709")
    assert other.colour_matrix == "bt709" and is_orange(other)
    with pytest.raises(VideoError, match=r"unknown colour matrix 'bt907'.*bt709"):
        Video.open(path, colour_matrix="bt907")


def test_colours_stored_as_red_green_and_blue(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *SMALL, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((*SMALL, 3), ORANGE, np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = Video.from_file(tmp_path / "clip.mkv", n_frames=1, colour_matrix="bt709")
    assert clip.colour_matrix is None and clip.frames[0, 0, 0].tolist() == list(ORANGE)
    assert Video.from_array(clip.frames).colour_matrix is None
