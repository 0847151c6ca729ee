"""Output of the overlays of a volume's slices, or of a clip's frames, one after the other."""

import io

import numpy as np
from PIL import Image

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.images.volumes import VolumeView
from camcli.outputs.overlay import draw_overlay
from camcli.outputs.style import Style

# Milliseconds for which a frame of a GIF is shown, and frames of a video in a second.
GIF_MILLISECONDS, FRAMES_PER_SECOND = 150, 8
VIDEO_HINT = "pip install 'camcli-vision[video]'; or --save gif"


def gif(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the map over each slice as a GIF that repeats."""
    first, *others = map(Image.fromarray, _draw_frames(picture, explanation, style))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=GIF_MILLISECONDS, loop=0)
    return file.getvalue()


def mp4(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the map over each slice as an MP4 of H.264, which browsers play; sides are cut to even numbers."""
    try:
        import av
    except ImportError as error:
        raise PictureError("--save mp4 needs PyAV, which is not installed", VIDEO_HINT) from error

    frames = _draw_frames(picture, explanation, style)
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return file.getvalue()


def _draw_frames(picture: Picture, explanation: Explanation, style: Style) -> list[np.ndarray]:
    view = picture.view
    if not isinstance(view, VolumeView):
        raise PictureError("is no volume, whose slices could be shown one after the other")
    return view.split(draw_overlay(picture, explanation, style))
