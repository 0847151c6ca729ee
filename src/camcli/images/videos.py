"""Frames of videos, decoded one at a time through PyAV, and no more of them held than threads wait for."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from camcli.base.errors import PictureError
from camcli.images import VIDEO_SUFFIXES, parse_every
from camcli.images.formats import suffix_of

VIDEO_HINT = "pip install 'camcli-vision[video]'"
# FFmpeg's names of the containers that are tried, and all that these may open: no playlists, no network.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,mxf,yuv4mpegpipe"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
# Videos that are open at a time, and videos whose frames' times are known: 8 bytes a frame.
MAX_OPEN, MAX_KNOWN = 4, 64
# Broken packets of a video that are passed over.
MAX_BROKEN = 1000
ROTATIONS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """Times of a video's frames.

    Attributes:
        times: of each frame in the order of their showing, in units of ``unit``.
        keys: of those frames that decoding can begin at.
        unit: seconds.
        size: width and height of the stored frames.
        aspect: width of a stored pixel by its height.
        damage: why the rest is not read; empty if all is.
    """

    times: Sequence[int]
    keys: Sequence[int]
    unit: Fraction
    size: tuple[int, int]
    aspect: Fraction
    damage: str

    def seconds(self, page: int) -> float:
        """Return when a frame, counted from 1, is shown, from the first on."""
        return float((self.times[page - 1] - self.times[0]) * self.unit)

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height with square pixels, none of them lost."""
        width, height = self.size
        return (round(width * self.aspect), height) if self.aspect >= 1 else (width, round(height / self.aspect))

    def choose(self, every: str) -> list[int]:
        """Return the frames of ``1s`` (those nearest to each second) or ``10`` (each tenth), counted from 1."""
        seconds, frames = parse_every(every)
        if frames:
            return list(range(1, len(self.times) + 1, frames))
        step = Fraction(seconds).limit_denominator(10**6) / self.unit
        count = int((self.times[-1] - self.times[0]) / step) + 1
        return list(dict.fromkeys(self._find_nearest(self.times[0] + turn * step) for turn in range(count)))

    def _find_nearest(self, time: Fraction) -> int:
        after = bisect_left(self.times, time)
        if after == len(self.times) or (after and time - self.times[after - 1] <= self.times[after] - time):
            return after
        return after + 1


def is_video(path: str) -> bool:
    """Return whether a file is a video by its name."""
    return suffix_of(path) in VIDEO_SUFFIXES


@lru_cache(maxsize=MAX_KNOWN)
def index_video(path: Path, _stamp: str = "") -> VideoIndex:
    """Read the times of a video's frames, without decoding any.

    Raises:
        PictureError: it is no video that can be read, or has no frame.
    """
    import av

    container, stream = _open(path)
    with container:
        times, keys, damage = array("q"), array("q"), ""
        try:
            for packet in container.demux(stream):
                time = packet.dts if packet.pts is None else packet.pts
                if time is None or not packet.size or packet.is_discard:
                    continue
                times.append(time)
                if packet.is_keyframe:
                    keys.append(time)
        except (av.FFmpegError, OSError) as error:
            damage = f"is damaged or cut short: {error}"
        context = stream.codec_context
        aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
        missing = max(stream.frames - len(times), 0)
        unit, size = stream.time_base or Fraction(1, 1000), (context.width, context.height)
    if not times or not all(size):
        raise PictureError(damage or "holds no frames")
    index = VideoIndex(array("q", sorted(set(times))), array("q", sorted(keys)), unit, size, aspect, damage)
    if missing and not damage:
        end = index.seconds(len(index.times))
        damage = f"is damaged or cut short: {missing} of its {stream.frames} frames, after {end:.3f} s, are missing"
        return VideoIndex(index.times, index.keys, unit, size, aspect, damage)
    return index


def read_frame(path: Path, stamp: str, page: int) -> Image.Image:
    """Return a frame, upright, RGB, with square pixels.

    Args:
        path: path of the video.
        stamp: its stamp.
        page: number of the frame, from 1.

    Raises:
        PictureError: there is no such frame, or it cannot be decoded.
    """
    index = index_video(path, stamp)
    if page > len(index.times):
        raise PictureError(f"has no frame {page}, but {len(index.times)}")
    frame = _get_reader(path, stamp, index).read(index.times[page - 1])
    if frame is None or frame.is_corrupt:
        raise PictureError(f"its frame at {index.seconds(page):.3f} s is damaged")
    width, height = index.shown_size if (frame.width, frame.height) == index.size else (frame.width, frame.height)
    image: Image.Image = frame.to_image(width=width, height=height)
    turn = ROTATIONS.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


class _Reader:
    """Decoder of a video, which goes on from where it is, or from a key frame where that is nearer."""

    def __init__(self, path: Path, index: VideoIndex) -> None:
        self._path, self._index = path, index
        self._container, self._stream = _open(path)
        self._stream.thread_type = "AUTO"
        self._frames: Iterator[Any] = iter(())
        # Times of the last frame that was decoded, and of the first since the reader moved.
        self._at: int | None = None
        self._first: int | None = None
        self._last: Any = None
        # Frames that other threads wait for, which were passed.
        self._kept: dict[int, Any] = {}
        self._waiting: list[int] = []
        self._lock = Lock()

    def read(self, time: int) -> Any:
        """Return the frame of a time; None if it cannot be decoded."""
        self._waiting.append(time)
        try:
            with self._lock:
                return self._kept.pop(time) if time in self._kept else self._find(time)
        finally:
            self._waiting.remove(time)

    def _find(self, time: int) -> Any:
        if self._at != time:
            keys = self._index.keys
            key = keys[max(bisect_right(keys, time) - 1, 0)] if keys else self._index.times[0]
            if self._at is None or self._at > time or key > self._at:
                self._seek(key)
                self._advance(time)
                if self._first is not None and self._first > time:  # the container led elsewhere
                    self._seek(self._index.times[0])
                    self._advance(time)
            else:
                self._advance(time)
        return self._last if self._at == time else None

    def _seek(self, time: int) -> None:
        self._container.seek(time, stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._at = self._first = self._last = None

    def _advance(self, time: int) -> None:
        """Decode up to a time, or to the first frame after it."""
        import av

        broken = 0
        while broken < MAX_BROKEN and (self._at is None or self._at < time):
            try:
                frame = next(self._frames, None)
            except (av.FFmpegError, OSError):
                broken += 1
                self._frames = self._container.decode(self._stream)
                continue
            if frame is None:
                self._at = None
                return
            at = frame.dts if frame.pts is None else frame.pts
            if at is None:
                continue
            self._at, self._last = at, frame
            self._first = at if self._first is None else self._first
            if at != time and at in self._waiting:
                self._kept[at] = frame


_readers: OrderedDict[tuple[Path, str], _Reader] = OrderedDict()
_lock = Lock()


def _get_reader(path: Path, stamp: str, index: VideoIndex) -> _Reader:
    with _lock:
        reader = _readers.get((path, stamp))
        if reader is None:
            reader = _readers[path, stamp] = _Reader(path, index)
        _readers.move_to_end((path, stamp))
        while len(_readers) > MAX_OPEN:
            _readers.popitem(last=False)
    return reader


def _open(path: Path) -> tuple[Any, Any]:
    try:
        import av
    except ImportError as error:
        raise PictureError("videos need PyAV, which is not installed", VIDEO_HINT) from error
    try:
        container = av.open(f"file:{path}", options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise PictureError(f"is not a video that can be read, or is damaged: {error}") from error
    if not container.streams.video:
        container.close()
        raise PictureError("has no video in it")
    return container, container.streams.video[0]
