"""Decoding one stream strictly: what FFmpeg would patch up in silence is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from videolens.errors import VideoError
from videolens.video.containers import damaged, opened, video_stream

STRICT = {"err_detect": "bitstream+buffer+explode", "max_pixels": str(2**27)}
"""Options of a decoder under which damage is an error, where the coding lets it be noticed; and no picture is larger
than four times 8K, whatever a file says."""

_ONE_EACH = {"vp8", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "hevc", "mjpeg", "ffv1"}
"""Decoders of codings in which every packet holds one picture: one that does not come out is lost."""


class StrictDecoder:
    """An open file, and the frames of its video stream in the order in which they are shown.

    "Damaged" means: the decoder reports an error or a corrupt frame between the key frame where decoding began and the
    frame that is wanted, or a packet's picture does not come out. FFmpeg's own VP9 decoder takes any bits for a
    picture; libvpx, where this PyAV has it, notices that a packet does not end where it should.

    Attributes:
        container, stream: of PyAV; others after `rewind`.
        matrix: how the pictures are to be turned, where that stands beside them and not in them; None: in each frame.
        n_packets: packets with a picture to show that were read since decoding began.
    """

    container: Any
    stream: Any

    def __init__(self, path: Path) -> None:
        self.path = path
        self.matrix: np.ndarray | None = None
        self.n_packets = 0
        self._open()
        context = self.stream.codec_context
        self._libvpx = context.name == "vp9" and context.pix_fmt == "yuv420p" and "libvpx-vp9" in av.codecs_available
        if self._libvpx:
            self.matrix = next((display_matrix(frame) for frame in self.container.decode(self.stream)), None)
            self.rewind()

    def _open(self) -> None:
        self.container = opened(self.path)
        try:
            self.stream = video_stream(self.path, self.container)
        except VideoError:
            self.container.close()
            raise
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.options = STRICT

    def __enter__(self) -> StrictDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    def rewind(self) -> None:
        """Go to the very beginning.

        No container but mp4 and mov can be trusted to find it: in MPEG-TS and mkv whose clock starts at or below 0, a
        seek lands in the middle. The others are opened anew.
        """
        if self.container.format.name.startswith("mov"):
            self.container.seek((self.container.start_time or 0) - 10 * av.time_base, backward=True)
        else:
            self.container.close()
            self._open()

    def frames(self, stamp: int | None) -> Iterator[Any]:
        """Decode from the key frame at or before a time stamp; None: from the first key frame of the file.

        Frames that are shown before that key frame and stored behind it need what comes before it: they are left out.

        Raises:
            VideoError: a frame is damaged.
            av.error.FFmpegError: so is what FFmpeg will not decode at all.
        """
        if stamp is None:
            self.rewind()
        else:
            self.container.seek(stamp, stream=self.stream, backward=True)
        stream = self.stream
        decoder = av.CodecContext.create("libvpx-vp9", "r") if self._libvpx else stream.codec_context
        key: Any = None
        self.n_packets = 0
        for packet in self.container.demux(stream):
            if packet.size:
                key = packet if key is None and packet.is_keyframe else key
                if key is None or (packet.pts is not None and key.pts is not None and packet.pts < key.pts):
                    continue
                self.n_packets += not (packet.is_discard or self._hidden(packet))
            elif packet.dts is not None:  # an empty packet would end the decoding: in AVI it repeats the frame before
                continue
            for frame in decoder.decode(packet if packet.size else None):
                if frame.is_corrupt:
                    raise damaged(self.path, f"the frame at {float((frame.pts or 0) * stream.time_base):.2f} s")
                yield frame

    def _hidden(self, packet: Any) -> bool:
        """Whether a packet's picture is only there for others to refer to (VP8: bit 4 of the header)."""
        return self.stream.codec_context.name == "vp8" and not bytes(packet)[0] >> 4 & 1

    def check_count(self, n_frames: int) -> None:
        """After a whole file was decoded: that every packet's picture came out.

        Raises:
            VideoError: some did not.
        """
        if self.stream.codec_context.name in _ONE_EACH and n_frames < self.n_packets:
            raise damaged(self.path, f"of its {self.n_packets} pictures only {n_frames} can be decoded")


def display_matrix(frame: Any) -> np.ndarray:
    """[[a, b], [c, d]]: the stored pixel (x, y) is to be shown at (a·x + c·y, b·x + d·y); the identity if not said."""
    # `frame.side_data` would make the frame hold what holds the frame, and large pictures wait for the collector
    made: Any = SideDataContainer  # its stub does not say what it is made of
    said = made(frame).get("DISPLAYMATRIX")
    if said is None:
        return np.eye(2)
    # ISO 14496-12: nine 32-bit numbers, a b u c d v x y w, of which a … d have 16 binary places
    numbers = np.frombuffer(bytes(said), dtype=np.int32)
    return numbers[[0, 1, 3, 4]].reshape(2, 2) / 65536
