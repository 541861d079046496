"""Cameras: addresses, and what is no camera."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from camera_parts import drain, frames, message
from video_writer import write_video

from mlx_gemma4.live.see.camera import Camera

Served = Callable[[bytes, str], str]


@pytest.fixture
def serve() -> Iterator[Served]:
    """Serve bytes at an address; those without a length are followed by silence until the test ends."""
    over = threading.Event()
    servers: list[ThreadingHTTPServer] = []

    def serve(data: bytes, kind: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                if kind == "video/x-matroska":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()
                if kind.endswith("stalls"):
                    over.wait()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/camera"

    yield serve
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def motion_jpeg(pictures: np.ndarray) -> bytes:
    """What cheap network cameras send."""
    import io

    from PIL import Image

    data = b""
    for pixels in pictures:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=95)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(stream.getvalue())}\r\n\r\n"
        data += head.encode() + stream.getvalue() + b"\r\n"
    return data


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours])


def test_a_file_at_an_address(tmp_path: Path, serve: Served) -> None:
    """It knows its length: it is no live stream, and can be read fast."""
    pictures = frames(3)
    address = serve(write_video(tmp_path / "a.mkv", pictures).read_bytes(), "video/x-matroska")
    with Camera(address, fast=True) as camera:
        shots = drain(camera)
    assert [shot.time for shot in shots] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)
    assert (camera.is_live, camera.problem) == (False, None)


def test_a_network_camera_that_goes_away(serve: Served) -> None:
    """Its last frame is still handed out."""
    pictures = plain((200, 40, 40), (40, 200, 40), (40, 40, 200))
    address = serve(motion_jpeg(pictures), "multipart/x-mixed-replace; boundary=frame")
    with Camera(address) as camera:
        shots = drain(camera)
    assert camera.is_live and camera.seen == len(shots) + camera.dropped
    assert np.abs(shots[-1].pixels.astype(int) - pictures[camera.seen - 1]).max() < 8
    assert re.match(rf"The pictures from {address} (ended|broke off: Input/output error)\.", camera.problem or "")


def test_a_network_camera_that_stalls(serve: Served) -> None:
    """Half a second of silence, here."""
    address = serve(motion_jpeg(plain(*[(200, 40, 40)] * 5)), "multipart/x-mixed-replace; boundary=frame; it stalls")
    with Camera(address, stall_seconds=0.5) as camera:
        assert drain(camera)
    assert camera.problem == f"The pictures from {address} stalled: none came for 0.5 s."


def test_an_address_where_nothing_answers() -> None:
    """Passwords are not told."""
    expected = "FFmpeg cannot read the video http://127.0.0.1:9/a: Connection refused"
    with pytest.raises(ValueError, match=message(expected)), Camera("http://me:secret@127.0.0.1:9/a"):
        pass


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either. Told before anything is opened."""
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(ValueError, match=message(f"There is no video file at {path}")):
            Camera(path)


@pytest.mark.parametrize("content", ["", "This is no video.\n" * 50])
def test_a_file_that_is_no_video(tmp_path: Path, content: str) -> None:
    """0 bytes, and text."""
    path = tmp_path / "a.mp4"
    path.write_text(content)
    expected = f"FFmpeg cannot read the video {path}: Invalid data found when processing input"
    with pytest.raises(ValueError, match=message(expected)), Camera(path):
        pass


def test_sound_is_nothing_to_see(tmp_path: Path) -> None:
    """A file, and a graph."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 16_000)
    for source in (str(path), "lavfi:sine"):
        expected = f"There are no pictures from {source}: it has no video stream"
        with pytest.raises(ValueError, match=message(expected)), Camera(source):
            pass


@pytest.mark.parametrize(("fast", "loop"), [(True, False), (False, False), (True, True)])
def test_a_file_without_frames(tmp_path: Path, fast: bool, loop: bool) -> None:
    """It opens, and has nothing to hand out; a loop of nothing ends as well."""
    path = write_video(tmp_path / "a.avi", [], codec="png")
    expected = f"There are no pictures from {path}: it has 0 video frames"
    with Camera(path, fast=fast, loop=loop) as camera, pytest.raises(ValueError, match=message(expected)):
        camera.read()


def test_a_graph_that_is_none() -> None:
    expected = "^FFmpeg cannot read the video lavfi:nonsense: (Invalid argument|Filter not found)$"
    with pytest.raises(ValueError, match=expected), Camera("lavfi:nonsense"):
        pass
