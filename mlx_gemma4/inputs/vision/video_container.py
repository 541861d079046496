"""How FFmpeg is told to open a video: as a file and nothing else, in formats that read no other files. Needs PyAV."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.inputs.vision.timeline import LEAP, LEAP_OF_BROADCASTS

if TYPE_CHECKING:
    import av

FORMATS = (
    "3gp,aac,ac3,aiff,apng,asf,avi,av1,bmp_pipe,dv,flac,flv,gif,gif_pipe,h261,h263,h264,hevc,ivf,j2k_pipe,jpeg_pipe,"
    "live_flv,m4v,matroska,mjpeg,mov,mp3,mp4,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nut,obu,ogg,pam_pipe,pbm_pipe,pgm_pipe,"
    "png_pipe,ppm_pipe,qoi_pipe,tiff_pipe,vc1,vvc,w64,wav,webm,webp_pipe,wtv,yuv4mpegpipe"
)
"""FFmpeg's names of what is read from a file. Playlists and lists of files are not among them."""
STREAMED = f"{FORMATS},hls,rtp,rtsp,sdp"
"""What an address may send, too."""
PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto,udp,rtp,srtp,rtsp,rtsps"
"""What an address may lead to: never a file."""
MAX_PIXELS = 36_000_000
"""Of a frame: 8K."""
TAKEN = "AVI, FLV, GIF, Matroska, MP4, MPEG, Ogg, QuickTime, WebM or WMV"


def file_options() -> dict[str, str]:
    """What FFmpeg may open for a file, and how large its frames may be."""
    return {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}


def address_options() -> dict[str, str]:
    """As ``file_options``, for an address that a user has typed."""
    return {"protocol_whitelist": PROTOCOLS, "format_whitelist": STREAMED, "max_pixels": str(MAX_PIXELS)}


def file_url(path: str | os.PathLike[str]) -> str:
    """The path as FFmpeg takes it: a file, also where its name looks like an address."""
    return f"file:{os.fspath(path)}"


def open_file(path: Path) -> av.container.InputContainer:
    """Open a file; PyAV's errors pass through."""
    import av

    return av.open(file_url(path), options=file_options())


def refusal(error: Exception) -> str:
    """What is wrong with what did not open, in FFmpeg's words where it has any that tell."""
    if getattr(error, "errno", None) == errno.EINVAL:
        return f"a playlist, frames of over {MAX_PIXELS} pixels, or a format other than {TAKEN}; convert it to MP4"
    return getattr(error, "strerror", None) or str(error)


def pictures_of(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream that FFmpeg prefers among those that move; the cover of a song is none."""
    from av.stream import Disposition

    moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    stream = best if best in moving else next(iter(moving), None)
    if stream is not None and stream.codec_context is not None:
        stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(MAX_PIXELS)}
    return stream


def check_size(stream: av.VideoStream, name: str) -> None:
    """Raise a ValueError if frames are too large to be decoded in bounded memory."""
    if stream.codec_context is not None and stream.width * stream.height > MAX_PIXELS:
        raise ValueError(
            f"Expected frames of at most {MAX_PIXELS} pixels in {name}, got {stream.width} × {stream.height}; "
            "scale it down first"
        )


def leap_of(container: Any) -> float:
    """Seconds that times may leap ahead before the clock was set anew, as where recordings of television are joined."""
    import av

    may_restart = bool(container.format.flags & av.format.Flags.ts_discont.value)
    return LEAP_OF_BROADCASTS if may_restart else LEAP
