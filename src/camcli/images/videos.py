"""Frames of videos, decoded one at a time through PyAV, and no more of them held than threads wait for."""

from __future__ import annotations

import importlib.util
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from camcli.base.errors import PictureError, RequestError
from camcli.images import VIDEO_SUFFIXES, parse_every
from camcli.images.formats import suffix_of

VIDEO_HINT = "pip install 'camcli-vision[video]'"
# FFmpeg's names of the containers that are tried, and all that these may open: no playlists, no network.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,mxf,yuv4mpegpipe"
# Those that lead to the key frame that is asked for.
EXACT_CONTAINERS = ("mov", "matroska", "flv")
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
# Videos that are open at a time, and videos whose frames' times are known: 8 bytes a frame.
MAX_OPEN, MAX_KNOWN = 4, 64
# Broken packets of a video that are passed over.
MAX_BROKEN = 1000
# What Matroska says of a stream's length, and seconds by which its last frame may begin earlier.
DURATION, SPARE_SECONDS = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)", re.ASCII), 1.0
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
        counted: True if the container does not say when frames are shown: times are their numbers, and each is reached
            by decoding all before it.
    """

    times: Sequence[int]
    keys: Sequence[int]
    unit: Fraction
    size: tuple[int, int]
    aspect: Fraction
    damage: str = ""
    counted: bool = False

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


def check_pyav() -> None:
    """Check that PyAV, an extra, is there to read videos with.

    Raises:
        RequestError: it is not.
    """
    if importlib.util.find_spec("av") is None:
        raise RequestError("--every reads videos, which need PyAV, and that is not installed", VIDEO_HINT)


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
        times, keys, broken, damage = array("q"), array("q"), 0, ""
        counted = container.format.name == "avi"  # whose times are those of packets
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard or (packet.pts is None and packet.dts is None):
                    continue
                if packet.is_corrupt:
                    broken += 1
                    continue
                counted |= packet.pts is None
                times.append(packet.dts if packet.pts is None else packet.pts)
                if packet.is_keyframe:
                    keys.append(times[-1])
        except (av.FFmpegError, OSError) as error:
            damage = f"is damaged or cut short: {error}"
        context = stream.codec_context
        aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
        unit, size = stream.time_base or Fraction(1, 1000), (context.width, context.height)
        if counted:
            times, keys, unit = array("q", range(len(times))), array("q"), 1 / (stream.average_rate or Fraction(25))
        if not times or not all(size):
            raise PictureError(damage or "holds no frames")
        index = VideoIndex(
            array("q", sorted(set(times))), array("q", sorted(keys)), unit, size, aspect, damage, counted
        )
        return index if damage else replace(index, damage=_find_missing(stream, index, broken))


def _find_missing(stream: Any, index: VideoIndex, broken: int) -> str:
    """Return what is missing of a video, by what its container says of it; empty if nothing is known to be."""
    end = index.seconds(len(index.times))
    lost = max(stream.frames - len(index.times), broken)
    if lost > 0:
        return f"is damaged or cut short: {lost} of its frames are missing; the last that is whole is at {end:.3f} s"
    told = DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    seconds = int(told[1]) * 3600 + int(told[2]) * 60 + float(told[3]) if told else 0.0
    if seconds > end + SPARE_SECONDS:
        return f"is damaged or cut short: its last frame is at {end:.3f} s, and it should last {seconds:.3f} s"
    return ""


def read_frame(path: Path, stamp: str, page: int) -> Image.Image:
    """Return a frame, upright, RGB, with square pixels.

    Args:
        path: path of the video.
        stamp: its stamp.
        page: number of the frame, from 1.

    Raises:
        PictureError: there is no such frame, or it cannot be decoded.
    """
    from av.video.reformatter import VideoReformatter

    index = index_video(path, stamp)
    if page > len(index.times):
        raise PictureError(f"has no frame {page}, but {len(index.times)}")
    frame = _get_reader(path, stamp, index).read(index.times[page - 1])
    if frame is None or frame.is_corrupt:
        raise PictureError(f"its frame at {index.seconds(page):.3f} s is damaged")
    width, height = index.shown_size if (frame.width, frame.height) == index.size else (frame.width, frame.height)
    # Not the frame's own: two threads that want the same frame would share it, and crash.
    shown: Any = VideoReformatter().reformat(frame, width, height, "rgb24")
    image: Image.Image = shown.to_image()
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
        self._count = -1
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
        keys = self._index.keys
        place = bisect_right(keys, time) - 1
        if self._at is not None and self._at <= time and (place < 0 or keys[place] <= self._at):
            self._advance(time)
            return self._last if self._at == time else None
        # Some containers lead elsewhere: then from an earlier key frame, and from the beginning.
        exact = self._container.format.name.startswith(EXACT_CONTAINERS)
        for key in dict.fromkeys((place, place - 2, -1)):
            self._move(keys[key] if key >= 0 else None)
            self._advance(time)
            if self._at == time or (exact and self._first is not None and self._first <= time):
                break
        return self._last if self._at == time else None

    def _move(self, time: int | None) -> None:
        """Go to a key frame; None for the beginning, which no container misses."""
        if time is None:
            self._container.close()
            self._container, self._stream = _open(self._path)
            self._stream.thread_type = "AUTO"
        else:
            self._container.seek(time, stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._at = self._first = self._last = None
        self._count = -1

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
            self._count += 1
            at = self._count if self._index.counted else frame.pts
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
    except ImportError as error:  # on a machine of a cluster that lacks it
        raise PictureError("videos need PyAV, which is not installed", VIDEO_HINT) from error
    try:
        container = av.open(f"file:{path}", options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise PictureError(f"is not a video that can be read, or is damaged: {error}") from error
    if not container.streams.video:
        container.close()
        raise PictureError("has no video in it")
    return container, container.streams.video[0]
