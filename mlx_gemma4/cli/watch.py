"""``mlx_gemma4 watch``: a question about a camera, answered when the scene changes."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.cameras import add_listing, open_camera, print_cameras
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import end_code, note
from mlx_gemma4.cli.shared.options import add_model, add_sensitivity, load_model, threshold
from mlx_gemma4.cli.shared.outputs import output_file, output_folder
from mlx_gemma4.cli.shared.signals import Session, starting

if TYPE_CHECKING:
    from mlx_gemma4.live.see.camera import Camera, Shot
    from mlx_gemma4.live.see.watcher import Sighting, Watcher

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--ask",
    "--every",
    "--remember",
    "--only-new",
    "--sensitivity",
    "--list-cameras",
    "--save",
    "--stats",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    'mlx_gemma4 watch --ask "What is on the desk?" --only-new',
    "mlx_gemma4 watch rtsp://host/door --save pictures",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        default="0",
        metavar="SOURCE",
        help="a camera by number or name (default: 0), a video, a picture, an rtsp or http(s) address, or lavfi:GRAPH",
    )
    add_listing(parser)
    add_model(parser)
    parser.add_argument(
        "--ask", default="Describe the image.", metavar="TEXT", help="the question (default: Describe the image.)"
    )
    parser.add_argument("--system", help="system message")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="ask every SECONDS instead of on changes")
    parser.add_argument(
        "--heartbeat",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="ask again after so long without a change (default: 60; 0: never)",
    )
    add_sensitivity(parser)
    parser.add_argument(
        "--settle",
        type=float,
        default=0.3,
        metavar="SECONDS",
        help="ask about a change after so long without movement (default: 0.3)",
    )
    parser.add_argument(
        "--max-wait",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="ask about a scene that keeps changing after so long (default: 5)",
    )
    parser.add_argument(
        "--remember", type=int, default=0, metavar="K", help="show the model the last K changes as a video"
    )
    parser.add_argument("--only-new", action="store_true", help="do not print an answer that equals the one before")
    parser.add_argument("--image-tokens", type=int, help="soft tokens of each picture: 70, 140, 280, 560 or 1120")
    parser.add_argument("--max-tokens", "-m", type=int, default=100, help="maximum length of an answer (default: 100)")
    parser.add_argument("--fast", action="store_true", help="look at every picture of a file, as fast as the model can")
    parser.add_argument("--loop", action="store_true", help="restart a file when it ends")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="stop after so much time of the camera")
    parser.add_argument("--save", metavar="DIR", help="save each picture that has an answer as a PNG in DIR")
    parser.add_argument("--stats", action="store_true", help="print pictures, work and delays on stderr")
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.list_cameras:
        print_cameras()
        return 0
    if arguments.duration is not None and not arguments.duration > 0:
        raise ValueError(f"--duration must be more than 0 seconds, got {arguments.duration:g}")
    with ExitStack() as stack:
        with starting():
            check_drafts(arguments)
            save = None if arguments.save is None else stack.enter_context(snapshots(Path(arguments.save)))
            camera = stack.enter_context(open_camera(arguments.source, fast=arguments.fast, loop=arguments.loop))
            watcher = make_watcher(arguments)
        if camera.is_live:
            note("Watching; Ctrl-C ends.")
        ages: list[tuple[float, float]] = []
        with Session(camera.stop) as session:
            show(camera, watcher, session, arguments.duration, save, ages)
        if camera.broken:
            note(f"{camera.broken} packets could not be decoded and were skipped")
        if camera.skipped_seconds:
            note(f"{camera.skipped_seconds:.0f} s in which the film shows nothing new were not waited for")
        if arguments.stats:
            note(statistics(camera, watcher, ages))
        return end_code(session, camera.problem)


def make_watcher(arguments: argparse.Namespace) -> Watcher:
    """The watcher that the options describe."""
    changes = threshold(arguments)
    model, processor = load_model(arguments)

    from mlx_gemma4.live.see.watcher import Watcher, Watching

    settings = Watching(
        question=arguments.ask,
        system=arguments.system,
        every=arguments.every,
        heartbeat=arguments.heartbeat,
        memory=arguments.remember,
        image_tokens=arguments.image_tokens,
        max_tokens=arguments.max_tokens,
        only_new=arguments.only_new,
        threshold=changes,
        settle=arguments.settle,
        max_wait=arguments.max_wait,
    )
    return Watcher(model, processor, settings, drafter=open_drafter(arguments))


def show(
    camera: Camera,
    watcher: Watcher,
    session: Session,
    duration: float | None,
    save: Callable[[Shot], None] | None,
    ages: list[tuple[float, float]],
) -> None:
    """Watch until the camera or the time ends; add the age of each picture at its first forward and its answer."""
    with display() as draw:
        for shot, answer in session.events(sightings(camera, watcher, duration, lambda: session.number is not None)):
            draw(shot, answer)
            if answer is None:
                continue
            ages.append((answer.begun, answer.age))
            if save is not None:
                save(shot)
            if not answer.complete:
                note(f"The answer at {answer.time:.2f} s was cut at {answer.tokens} tokens")


def sightings(
    camera: Camera, watcher: Watcher, duration: float | None, is_stopped: Callable[[], bool]
) -> Generator[tuple[Shot, Sighting | None], None, None]:
    """Every picture and its answer; at the end also the answer about a change that has not settled."""
    last = None
    while (shot := camera.read()) is not None and (duration is None or shot.time < duration):
        yield shot, watcher.see(shot)
        last = shot
    if last is not None and not is_stopped() and (answer := watcher.finish()) is not None:
        yield last, answer


@contextmanager
def display() -> Iterator[Callable[[Shot, Sighting | None], None]]:
    """A function that shows a picture and its answer: drawn on a terminal, elsewhere one JSON line for each answer."""
    if not sys.stdout.isatty():
        yield lambda shot, answer: None if answer is None else print(as_json(answer), flush=True)
        return
    import time

    from rich.console import Console

    from mlx_gemma4.cli.shared.preview import Preview

    with Preview(Console()) as preview:
        yield lambda shot, answer: preview.show(shot, answer, time.monotonic() - shot.arrived)


def as_json(answer: Sighting) -> str:
    """An answer as a JSON object; times and ages in seconds."""
    record = {
        "time": round(answer.time, 3),
        "age": round(answer.age, 4),
        "begun": round(answer.begun, 4),
        "reason": answer.reason,
        "answer": answer.text,
        "tokens": answer.tokens,
        "forwards": answer.forwards,
        "dropped": answer.dropped,
        "complete": answer.complete,
    }
    return json.dumps(record, ensure_ascii=False)


@contextmanager
def snapshots(path: Path) -> Iterator[Callable[[Shot], None]]:
    """A function that saves a picture into a folder, which must be new or empty."""
    from PIL import Image

    with output_folder(path, "--save") as folder:
        if any(folder.iterdir()):
            raise ValueError(f"--save: {folder} is not empty; name a new or an empty folder")

        def save(shot: Shot) -> None:
            with output_file(new_name(folder, clock_time(shot.time)), "--save") as file:
                picture = io.BytesIO()
                Image.fromarray(shot.pixels).save(picture, format="PNG")
                file.append(picture.getvalue())

        yield save


def new_name(folder: Path, name: str) -> Path:
    """A path by the time of a picture; a second one within the same millisecond gets a 2, and so on."""
    names = (f"{name}.png" if number == 1 else f"{name}-{number}.png" for number in count(1))
    return next(path for candidate in names if not (path := folder / candidate).exists())


def clock_time(seconds: float) -> str:
    """hh-mm-ss.mmm, for file names."""
    total = round(1000 * seconds)
    return f"{total // 3_600_000:02d}-{total // 60_000 % 60:02d}-{total // 1000 % 60:02d}.{total % 1000:03d}"


def statistics(camera: Camera, watcher: Watcher, ages: list[tuple[float, float]]) -> str:
    """Pictures, work and delays."""
    from mlx_gemma4.live.hear.delays import quantile

    looks = watcher.looks
    lines = [
        f"frames {camera.seen} · dropped {camera.dropped} · looked at {looks.shots} · changes {looks.changes} · "
        f"asked {looks.asked} · told {looks.told} · forwards {watcher.forwards}"
    ]
    for what, which in (("first forward", 0), ("answer", 1)):
        if ages:
            p50, p95 = (1000 * quantile([age[which] for age in ages], share) for share in (0.5, 0.95))
            lines.append(f"age of a frame at the {what}: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    return "\n".join(lines)
