"""The page at ``/`` in Chromium, whose microphone is a recording of the demo and whose camera is a picture of it.

    apt-get install chromium
    pip install playwright                       # beside the package; Chromium is Debian's, or --chromium PATH
    python tests/page_client.py [--screenshots FOLDER]

It starts its servers itself, and prints a line for each check.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from golden import answered, named, utterances
from PIL import Image
from playwright.sync_api import Page, Playwright, Route, WebSocketRoute, expect, sync_playwright
from reference_cases import media_file

ROOT = Path(__file__).parent.parent
SPEECH, OTHER, QUESTION, PICTURE = "hibari-03.wav", "pico-04.wav", "question.wav", "picture-02.png"
ASKED_ABOUT = "question.png"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DEVICES, ALLOWED, DENIED = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--deny-permission-prompts",
)
DESK, PHONE = {"width": 1180, "height": 760}, {"width": 390, "height": 844}
SOON = 30_000
"""Milliseconds in which something must happen on a busy machine."""


class Server:
    """``mlx_gemma4 serve`` with the demo."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "mlx_gemma4", "serve", "--model", "demo", "--dtype", "float32"]
        self._process = subprocess.Popen(
            [*command, "--port", str(port), *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        found = re.search(r":(\d+)/v1$", line.strip())
        assert found is not None, line
        self.port = int(found[1])
        self.url = f"http://localhost:{self.port}/"

    def sessions(self) -> int:
        """Requests that are computed now."""
        with urllib.request.urlopen(f"{self.url}metrics") as response:
            lines = response.read().decode().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("mlx_gemma4_sessions ")))

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.communicate(timeout=60)


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.end()


class Browsers:
    """Starts Chromium with devices of its own."""

    def __init__(self, playwright: Playwright, chromium: str, folder: Path, screenshots: Path | None) -> None:
        self._playwright, self._chromium, self._folder = playwright, chromium, folder
        self._screenshots = screenshots
        self.requests: list[str] = []
        """Addresses that pages have asked for."""

    @contextmanager
    def page(
        self,
        url: str,
        *,
        speech: str | None = None,
        picture: str = PICTURE,
        flags: tuple[str, ...] = (DEVICES, ALLOWED),
        viewport: dict[str, int] = DESK,
        **context: Any,
    ) -> Iterator[Page]:
        """A page, which must not report an error."""
        sound = self._sound(speech)
        files = (
            f"--use-file-for-fake-audio-capture={sound}%noloop",
            f"--use-file-for-fake-video-capture={self._video(picture)}",
        )
        browser = self._playwright.chromium.launch(
            executable_path=self._chromium, args=[*QUIET, *flags, *(files if DEVICES in flags else ())]
        )
        problems: list[str] = []
        try:
            page = browser.new_context(viewport=viewport, **context).new_page()  # type: ignore[arg-type]
            page.set_default_timeout(SOON)
            expect.set_options(timeout=SOON)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda told: problems.append(told.text) if is_problem(told.text) else None)
            page.on("request", lambda request: self.requests.append(request.url))
            page.goto(url)
            yield page
        finally:
            browser.close()
        assert problems == [], problems

    def shoot(self, page: Page, name: str) -> None:
        if self._screenshots is not None:
            page.screenshot(path=self._screenshots / f"{name}.png")

    def _sound(self, name: str | None) -> Path:
        """A recording with silence around it; None: a room in which nobody speaks; "": nothing but zeros."""
        path = self._folder / f"{name}.wav"
        if not path.exists():
            data = b"" if not name else media_file(name).read_bytes()
            spread = 0 if name == "" else 8
            noise = np.random.default_rng(0).normal(0, spread, 16_000).astype("<i2").tobytes()
            samples = noise + data[44:] + 8 * noise
            path.write_bytes(wav_head(len(samples)) + samples)
        return path

    def _video(self, name: str) -> Path:
        """A picture as a video."""
        path = self._folder / f"{name}.y4m"
        if not path.exists():
            picture = Image.open(media_file(name)).convert("YCbCr")
            width, height = picture.size
            y, blue, red = picture.split()
            half = (width // 2, height // 2)
            planes = [np.asarray(plane, float) for plane in (y, blue.resize(half), red.resize(half))]
            scaled = [16 + plane * scale / 255 for plane, scale in zip(planes, (219, 224, 224), strict=True)]
            frame = b"FRAME\n" + b"".join(plane.round().astype(np.uint8).tobytes() for plane in scaled)
            path.write_bytes(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420mpeg2\n".encode() + 10 * frame)
        return path


def is_problem(told: str) -> bool:
    """Whether the console tells of a mistake, and not of a server that is gone or refuses."""
    return not any(part in told for part in ("Failed to load resource", "WebSocket connection to"))


def wav_head(size: int) -> bytes:
    """Of 16 bits, 16 kHz, mono."""
    form = b"fmt " + np.array([16, 0x10001, 16_000, 32_000, 0x100002], "<u4").tobytes()
    return b"RIFF" + np.uint32(36 + size).tobytes() + b"WAVE" + form + b"data" + np.uint32(size).tobytes()


def said(page: Page) -> list[str]:
    """The texts of all turns."""
    return page.locator(".turn .words").all_inner_texts()


def press(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def wait_for_picture(page: Page) -> None:
    while not page.evaluate("document.querySelector('#video').videoWidth"):
        page.wait_for_timeout(50)


def notice(page: Page) -> str:
    page.locator("#notice").wait_for()
    return page.inner_text("#notice-text")


def expect_turns(page: Page, *texts: str) -> None:
    """These are the turns, and they are complete."""
    expect(page.locator(".turn[data-state=done] .words")).to_have_text(list(texts), timeout=SOON)


def words(browsers: Browsers, server: Server) -> None:
    """A recording is heard as ``transcribe`` hears it, word by word."""
    with browsers.page(server.url, speech=SPEECH) as page:
        expect(page.locator("#state")).to_have_text("Ready")
        page.locator("summary").click()
        page.get_by_label("Answer what I say").uncheck()
        running: list[str] = []
        levels: list[int] = []
        page.expose_function("told", lambda text: running.append(text))
        page.expose_function("level", lambda text: levels.append(int(text)))
        page.evaluate(
            "new MutationObserver(() => told(document.querySelector('#turns').innerText))"
            ".observe(document.querySelector('#turns'), {subtree: true, childList: true, characterData: true})"
        )
        page.evaluate(
            "new MutationObserver(() => level(document.querySelector('#meter').getAttribute('aria-valuenow')))"
            ".observe(document.querySelector('#meter'), {attributes: true})"
        )
        press(page, "Microphone")
        expect_turns(page, *utterances(SPEECH))
        found = {text.split("\n")[-1] for text in running}
        whole = utterances(SPEECH)[0]
        assert sum(whole.startswith(text) and text != whole for text in found) >= 2, found
        assert re.fullmatch(r"\d\.\d\d s", page.inner_text("#words-delay"))
        assert whole in page.inner_text("#live")
        assert max(levels) > -40 and min(levels) < -50, levels  # of speech, and of the room
        expect(page.locator("#notice")).to_be_hidden()
        press(page, "Microphone")
        expect(page.locator("#state")).to_have_text("Connected")


def spoken_question(browsers: Browsers, server: Server) -> None:
    """Asked aloud about what the camera sees."""
    with browsers.page(server.url, speech=QUESTION, picture=ASKED_ABOUT) as page:
        press(page, "Camera")
        wait_for_picture(page)
        press(page, "Microphone")
        expect(page.locator(".turn.model[data-state=done] .words")).to_have_text(str(answered("question").text))
        expect(page.locator(".turn.user .sent")).to_be_visible()
        assert re.fullmatch(r"\d\.\d\d s", page.inner_text("#answer-delay"))
        browsers.shoot(page, "spoken-question")


def typed_question(browsers: Browsers, server: Server) -> None:
    """Typed, with the camera's picture, and by the keyboard alone."""
    with browsers.page(server.url, viewport=PHONE, has_touch=True, color_scheme="dark") as page:
        press(page, "Camera")
        wait_for_picture(page)
        page.get_by_label("Your question").focus()
        page.keyboard.type("Describe the image.")
        page.keyboard.press("Enter")
        expect_turns(page, "Describe the image.", named(PICTURE))
        assert named(PICTURE) in page.inner_text("#live")
        browsers.shoot(page, "typed-question")


def screen(browsers: Browsers, server: Server) -> None:
    """A shared screen takes the place of the camera, and leaves like it."""
    with browsers.page(server.url) as page:
        press(page, "Camera")
        expect(page.locator("#camera")).to_have_attribute("aria-pressed", "true")
        press(page, "Screen")
        expect(page.locator("#screen")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#camera")).to_have_attribute("aria-pressed", "false")
        wait_for_picture(page)
        browsers.shoot(page, "screen")
        press(page, "Screen")
        expect(page.locator("#stage")).to_be_hidden()


def save_and_begin_anew(browsers: Browsers, server: Server) -> None:
    with browsers.page(server.url, speech=SPEECH) as page:
        press(page, "Microphone")
        expect(page.locator(".turn.user[data-state=done] .words")).to_have_text(utterances(SPEECH)[0])
        with page.expect_download() as download:
            press(page, "Save as text")
        assert download.value.suggested_filename == "conversation.txt"
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert text.startswith(f"You: {utterances(SPEECH)[0]}\n"), text
        press(page, "New conversation")
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#state")).to_have_text("Listening")


def text_is_text(browsers: Browsers, server: Server) -> None:
    """What was written is shown and never run."""
    with browsers.page(server.url) as page:
        page.fill("#question", "<img src=x onerror=document.title='bad'><b>bold</b>")
        press(page, "Send")
        page.locator(".turn.user").wait_for()
        assert said(page)[0] == "<img src=x onerror=document.title='bad'><b>bold</b>"
        assert page.title() != "bad"


class Script:
    """A server that the test plays: it answers the page's events as it is told."""

    def __init__(self, page: Page) -> None:
        self.sent: list[dict[str, Any]] = []
        """Events of the page."""
        page.route_web_socket("**/v1/realtime*", self._open)

    def _open(self, socket: WebSocketRoute) -> None:
        self._socket = socket
        socket.on_message(lambda message: self.sent.append(json.loads(message)))
        self.tell("session.created", session={})

    def tell(self, kind: str, **fields: Any) -> None:
        self._socket.send(json.dumps({"type": kind, "event_id": "event", **fields}))

    def begin(self, response_id: str, text: str) -> None:
        self.tell("response.created", response={"id": response_id})
        self.tell("response.output_text.delta", response_id=response_id, delta=text)

    def finish(self, response_id: str, status: str, **details: Any) -> None:
        self.tell("response.done", response={"id": response_id, "status": status, "status_details": details or None})

    def count(self, kind: str) -> int:
        return [event["type"] for event in self.sent].count(kind)

    def close(self) -> None:
        self._socket.close(code=1011)


def answers_that_end_otherwise(browsers: Browsers, server: Server) -> None:
    """Interrupted, cut short, failed, empty; with text that looks like HTML, and events that the page does not know."""
    with browsers.page(server.url) as page:
        script = Script(page)
        page.fill("#question", "one")
        press(page, "Send")
        wait_for(page, lambda: script.count("response.create") == 1)
        script.begin("r1", "<b onclick=alert(1)>never</b>")
        expect(page.locator(".turn.model .text")).to_have_text("<b onclick=alert(1)>never</b>")
        page.keyboard.press("Escape")
        wait_for(page, lambda: script.count("response.cancel") == 1)
        script.finish("r1", "cancelled", reason="client_cancelled")
        expect(page.locator(".turn.model .foot")).to_contain_text("interrupted")
        page.fill("#question", "two")
        press(page, "Send")
        wait_for(page, lambda: script.count("response.create") == 2)
        script.begin("r2", "a long answer")
        page.fill("#question", "three")
        press(page, "Send")  # while it is answered: interrupts, and asks when that has ended
        wait_for(page, lambda: script.count("response.cancel") == 2)
        assert script.count("response.create") == 2
        script.finish("r2", "incomplete", reason="max_output_tokens")
        expect(page.locator(".turn.model .foot").nth(1)).to_contain_text("cut short")
        wait_for(page, lambda: script.count("response.create") == 3)
        script.tell("response.created", response={"id": "r3"})
        script.finish(
            "r3", "failed", type="failed", error={"message": "There is no memory left", "code": "memory_full"}
        )
        expect(page.locator(".turn.model .problem").nth(2)).to_have_text("There is no memory left")
        script.tell("response.created", response={"id": "r4"})
        script.finish("r4", "completed")
        expect(page.locator(".turn.model .problem").nth(3)).to_have_text("The answer is empty.")
        for kind in ("rate_limits.updated", "something.new"):
            script.tell(kind)
        script.tell("error", error={"message": "<i>Something</i> is wrong", "code": "c", "event_id": None})
        expect(page.locator("#notice-text")).to_have_text("<i>Something</i> is wrong")
        script.begin("r5", "half an ans")
        expect(page.locator("#stop")).to_be_visible()
        script.close()
        expect(page.locator(".turn.model .foot").last).to_contain_text("cut short")
        expect(page.locator("#stop")).to_be_hidden()
        expect(page.locator("#state")).to_have_text("Ready")
        page.fill("#question", "four")
        press(page, "Send")  # a new session, which is told what was said
        wait_for(page, lambda: script.count("response.create") == 4)
        items = [event["item"] for event in script.sent if event["type"] == "conversation.item.create"]
        texts = [(item["role"], item["content"][0]["text"]) for item in items[3:]]
        answers = ["<b onclick=alert(1)>never</b>", "a long answer", "half an ans"]
        assert [text for role, text in texts if role == "assistant"] == answers, texts
        assert [text for role, text in texts if role == "user"] == ["one", "two", "three", "four"], texts


def answers_with_marks(browsers: Browsers, server: Server) -> None:
    """Bold, code and lists are shown as such; other signs stay, and nothing becomes HTML."""
    with browsers.page(server.url) as page:
        script = Script(page)
        page.fill("#question", "**mine** stays")
        press(page, "Send")
        wait_for(page, lambda: script.count("response.create") == 1)
        script.begin(
            "r1", "**bold** and `a<b>` 2 ** 3 **\n* one\n  - two\n```python\nprint('<hr>')\n```\n<u>end</u> *x*"
        )
        script.finish("r1", "completed")
        expect(page.locator(".turn.model[data-state=done]")).to_have_count(1)
        assert page.locator(".turn.model .text :is(b, code, pre)").all_inner_texts() == [
            "bold",
            "a<b>",
            "print('<hr>')",
        ]
        text = page.locator(".turn.model .text").text_content()
        assert text == "bold and a<b> 2 ** 3 **\n• one\n  • two\nprint('<hr>')<u>end</u> *x*", text
        expect(page.locator(".turn.user .text")).to_have_text("**mine** stays")
        browsers.shoot(page, "marks")


def device_gone(browsers: Browsers, server: Server) -> None:
    """Unplugged: the buttons are off, and the page says what to do."""
    with browsers.page(server.url, speech=SPEECH) as page:
        page.evaluate(
            "() => { const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
            "navigator.mediaDevices.getUserMedia = async (wished) => (window.stream = await ask(wished)); }"
        )
        for name, gone in (("Camera", "camera"), ("Microphone", "microphone")):
            press(page, name)
            expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
            page.evaluate("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
            assert notice(page) == f"The {gone} has gone. Connect it, then press {name} again."
            expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "false")
            press(page, "Close this message")


def wait_for(page: Page, is_true: Callable[[], bool]) -> None:
    for _ in range(SOON // 50):
        if is_true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def turned_off(browsers: Browsers, server: Server) -> None:
    """The microphone is switched off in a word's midst: what was said until then is a turn, and complete."""
    with browsers.page(server.url, speech=SPEECH) as page:
        press(page, "Microphone")
        expect(page.locator(".turn.user .words")).to_contain_text("five three")
        press(page, "Microphone")
        expect(page.locator(".turn.user[data-state=done] .words")).to_contain_text("five three")
        assert page.locator(".turn.user").count() == 1


def muted(browsers: Browsers, server: Server) -> None:
    with browsers.page(server.url, speech="") as page:
        press(page, "Microphone")
        assert notice(page) == "The microphone sends only silence. It may be muted, or not be the one you speak into."


def unknown_language(browsers: Browsers, server: Server) -> None:
    """It is refused and taken back, and the microphone is heard all the same."""
    with browsers.page(server.url, speech=OTHER) as page:
        page.locator("summary").click()
        page.fill("#language", "Klingon")
        page.locator("#instructions").focus()
        press(page, "Microphone")
        assert "Klingon" in notice(page)
        expect(page.locator("#language")).to_have_value("")
        expect(page.locator(".turn.user[data-state=done] .words")).to_have_text(utterances(OTHER)[0])


def restart(browsers: Browsers, server: Server) -> None:
    """A new server is told what was said."""
    own = Server()
    try:
        with browsers.page(own.url) as page:
            sent: list[Any] = []
            page.on("websocket", lambda socket: socket.on("framesent", lambda data: sent.append(data)))
            press(page, "Camera")
            wait_for_picture(page)
            page.fill("#question", "Describe the image.")
            press(page, "Send")
            expect_turns(page, "Describe the image.", named(PICTURE))
            own.end()
            expect(page.locator("#state")).to_have_text("No server")
            own = Server(port=own.port)
            expect(page.locator("#state")).to_have_text("Ready")
            sent.clear()
            page.fill("#question", "Describe the image.")
            press(page, "Send")
            expect(page.locator(".turn.user")).to_have_count(2)
            page.locator(".turn.model[data-state=done]").nth(1).wait_for()
            items = [json.loads(each)["item"] for each in sent if "conversation.item.create" in each]
            assert [item["content"][-1]["text"] for item in items] == [
                "Describe the image.",
                named(PICTURE),
                "Describe the image.",
            ]
            expect(page.locator("#notice")).to_be_hidden()
    finally:
        own.end()


def reload(browsers: Browsers, server: Server) -> None:
    """It begins anew, and the session of the page before is free."""
    with browsers.page(server.url, speech=SPEECH) as page:
        for _ in range(6):  # more than there are sessions
            press(page, "Microphone")
            expect(page.locator("#state")).to_have_text("Listening")
            page.reload()
            expect(page.locator("#state")).to_have_text("Ready")
        press(page, "Microphone")
        page.locator(".turn.user[data-state=done]").wait_for()
        page.goto("about:blank")
        for _ in range(50):
            if server.sessions() == 0:
                return
            page.wait_for_timeout(100)
        raise AssertionError("a session is still open")


def denied(browsers: Browsers, server: Server) -> None:
    with browsers.page(server.url, flags=(DEVICES, DENIED)) as page:
        press(page, "Microphone")
        assert notice(page).startswith("The browser may not use the microphone. Allow it with the icon beside the addr")
        assert page.locator("#microphone").get_attribute("aria-pressed") == "false"
        browsers.shoot(page, "denied")
        press(page, "Camera")
        expect(page.locator("#notice-text")).to_contain_text("The browser may not use the camera.")
        press(page, "Close this message")
        expect(page.locator("#notice")).to_be_hidden()


def no_device(browsers: Browsers, server: Server) -> None:
    with browsers.page(server.url, flags=(ALLOWED,)) as page:
        press(page, "Microphone")
        assert notice(page) == "No microphone was found. Connect one, then press Microphone again."


def other_checkpoints(browsers: Browsers, server: Server) -> None:
    """One that takes text alone."""
    record = {"id": "text-only", "object": "model", "created": 1, "owned_by": "m", "input_modalities": ["text"]}
    with browsers.page(server.url) as page:
        page.route("**/v1/models", lambda route: route.fulfill(body=json.dumps({"object": "list", "data": [record]})))
        page.reload()
        expect(page.locator("#model")).to_have_text("text-only")
        press(page, "Microphone")
        assert notice(page) == "This checkpoint takes no sound. Questions can be typed."
        press(page, "Camera")
        expect(page.locator("#notice-text")).to_have_text("This checkpoint takes no pictures.")


def phone(browsers: Browsers, server: Server) -> None:
    """Nothing is wider than the page, and a thumb hits what it aims at."""
    for width, height in (
        (320, 640),
        (390, 844),
        (390, 380),
        (667, 375),
        (760, 1000),
    ):  # the third has its keyboard open
        with browsers.page(server.url, viewport={"width": width, "height": height}, has_touch=True) as page:
            press(page, "Camera")
            room = page.locator("#log").bounding_box()
            assert room is not None and room["height"] >= 200, room
            if height > 500:
                page.locator("summary").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(senses)") == 0
            for name in ("#microphone", "#camera", "#screen", "#send", "#question"):
                box = page.locator(name).bounding_box()
                assert box is not None and box["height"] >= 44 and box["x"] + box["width"] <= width, (name, box)
            composer = page.locator("#composer").bounding_box()
            assert composer is not None and composer["y"] + composer["height"] <= height
            browsers.shoot(page, f"phone-{width}-{height}")


def keyboard(browsers: Browsers, server: Server) -> None:
    """Every control is reached by Tab, and Space presses it."""
    with browsers.page(server.url) as page:
        expect(page.locator("#state")).to_have_text("Ready")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert reached[:4] == ["microphone", "camera", "screen", "SUMMARY"], reached
        assert {"log", "question", "send"} <= set(reached)
        page.locator("#camera").focus()
        page.keyboard.press("Space")
        expect(page.locator("#camera")).to_have_attribute("aria-pressed", "true")


def server_gone(browsers: Browsers, server: Server) -> None:
    """A question that could not be sent stays; the page finds the server again, and goes on to listen."""
    own = Server()
    try:
        with browsers.page(own.url, speech=OTHER) as page:
            expect(page.locator("#state")).to_have_text("Ready")
            own.end()
            page.fill("#question", "Describe the image.")
            press(page, "Send")
            assert notice(page).startswith("The server does not answer. If it was stopped, start mlx_gemma4 serve")
            expect(page.locator("#question")).to_have_value("Describe the image.")
            expect(page.locator("#state")).to_have_text("No server")
            browsers.shoot(page, "server-gone")
            press(page, "Microphone")
            expect(page.locator("#microphone")).to_have_attribute("aria-pressed", "false")
            own = Server(port=own.port)
            expect(page.locator("#notice")).to_be_hidden()
            press(page, "Microphone")
            expect(page.locator("#state")).to_have_text("Listening")
            own.end()
            expect(page.locator("#state")).to_have_text("No server")
            own = Server(port=own.port)
            expect(page.locator("#state")).to_have_text("Listening")
            expect(page.locator("#notice")).to_be_hidden()
    finally:
        own.end()


def key(browsers: Browsers, server: Server) -> None:
    """A wrong one, and the right one, which no header could carry as it is. It is kept for the tab alone."""
    secret = "a b/c=(d)%41"
    with serving("--api-key", secret) as own, browsers.page(own.url, speech=SPEECH) as page:
        expect(page.locator("#state")).to_have_text("A key is needed")
        page.fill("#key", "wrong")
        press(page, "Connect")
        expect(page.locator("#key-problem")).to_have_text("This is not the key of the server.")
        browsers.shoot(page, "wrong-key")
        tried: list[Route] = []
        page.route("**/v1/models", lambda route: tried.append(route), times=1)
        press(page, "Microphone")
        wait_for(page, lambda: bool(tried))
        page.fill("#key", secret)
        press(page, "Connect")
        tried[0].continue_()  # with the wrong one, after the right one was entered
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("#state")).to_have_text("Listening")
        page.locator(".turn.user[data-state=done]").wait_for()
        page.reload()
        expect(page.locator("#state")).to_have_text("Ready")
        assert secret not in page.evaluate("JSON.stringify(localStorage)")


def busy(browsers: Browsers, server: Server) -> None:
    """Another page has the only session; when it leaves, this one listens."""
    with serving("--max-sessions", "1") as own, browsers.page(own.url, speech=SPEECH) as first:
        press(first, "Microphone")
        expect(first.locator("#state")).to_have_text("Listening")
        second = first.context.new_page()
        second.goto(own.url)
        press(second, "Microphone")
        expected = (
            "All sessions of the server are in use, by other pages or apps. This page tries again in a few seconds."
        )
        assert notice(second) == expected
        first.close()
        expect(second.locator("#state")).to_have_text("Listening")
        expect(second.locator("#notice")).to_be_hidden()


def insecure(browsers: Browsers, server: Server) -> None:
    """From another machine without https: why there is no microphone, and what to do."""
    address = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    if not address:
        print("    (no address but the loopback's)")
        return
    with serving("--host", "0.0.0.0", "--api-key", "secret") as own:
        url = f"http://{address[0]}:{own.port}/"
        with browsers.page(url) as page:
            page.fill("#key", "secret")
            press(page, "Connect")
            expect(page.locator("#state")).to_have_text("Ready")
            press(page, "Microphone")
            expect(page.locator("#notice-text")).to_contain_text(
                f"ssh -N -L {own.port}:localhost:{own.port} {address[0]}"
            )
            browsers.shoot(page, "insecure")


CHECKS = (
    words,
    spoken_question,
    typed_question,
    screen,
    save_and_begin_anew,
    text_is_text,
    answers_that_end_otherwise,
    answers_with_marks,
    device_gone,
    turned_off,
    muted,
    unknown_language,
    restart,
    reload,
    denied,
    no_device,
    other_checkpoints,
    phone,
    keyboard,
    server_gone,
    key,
    busy,
    insecure,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of the page")
    parser.add_argument("--only", nargs="+", choices=[check.__name__ for check in CHECKS])
    arguments = parser.parse_args()
    if arguments.chromium is None:
        sys.exit("Chromium is not installed: apt-get install chromium, or name it with --chromium PATH")
    if arguments.screenshots is not None:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, serving() as server:
        browsers = Browsers(playwright, arguments.chromium, Path(folder), arguments.screenshots)
        for check in CHECKS:
            if arguments.only is None or check.__name__ in arguments.only:
                check(browsers, server)
                print(f"ok  {check.__name__}", flush=True)
    elsewhere = {url for url in browsers.requests if not re.match(r"(http://(localhost|[\d.]+):\d+/|data:|blob:)", url)}
    assert elsewhere == set(), elsewhere


if __name__ == "__main__":
    main()
