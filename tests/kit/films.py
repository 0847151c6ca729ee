"""Videos that tests write, where PyAV is installed."""

import numpy as np


def film(name, frames=50, rate=25, size=(64, 48), codec="mpeg4", rotation=0, aspect=None, **options):
    """Write a video in which each frame's grey is five times its number; the left quarter is white."""
    import av

    with av.open(name, "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        stream.options = options
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 5 * number, np.uint8)
            pixels[:, : size[0] // 4] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
