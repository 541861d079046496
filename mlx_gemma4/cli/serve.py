"""``mlx_gemma4 serve``: apps that speak OpenAI's protocols talk to the model."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from importlib.util import find_spec

from mlx_gemma4.checkpoint.hub import default_model
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import add_loops, add_model, load_model, speech_use
from mlx_gemma4.cli.shared.signals import Session
from mlx_gemma4.programs.languages import language_name

NEEDED = ("llguidance", "msgspec", "python_multipart", "starlette", "uvicorn", "websockets")
MAX_SEGMENT = 15.0
"""Seconds of the longest segment of speech: a Transcriber's default."""
LOOPBACK, WYOMING_PORT, MOST_PORT = "127.0.0.1", "10300", 65535
SCHEMES = {"https": ("https",), "http": ("https", "http")}
"""What may be fetched, by --allow-fetch."""
INSTALL = "serve needs the serve extra; install it with pip install 'mlx-gemma4[serve]', or '.[serve]' in a checkout"
INSTALL_WYOMING = (
    "--wyoming needs the wyoming extra; install it with pip install 'mlx-gemma4[serve,wyoming]', "
    "or '.[serve,wyoming]' in a checkout"
)

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--host",
    "--port",
    "--api-key",
    "--name",
    "--max-sessions",
    "--wyoming",
    "--context",
    "--memory",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 serve --model demo",
    "mlx_gemma4 serve --host 0.0.0.0 --api-key SECRET",
    "mlx_gemma4 serve --wyoming",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_loops(parser)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one (default: 8080)")
    parser.add_argument("--api-key", metavar="KEY", help="what clients must send; needed if others can connect")
    parser.add_argument(
        "--name", action="append", default=[], help="another name of the model for clients; can be repeated"
    )
    parser.add_argument(
        "--max-sessions", type=int, default=4, metavar="N", help="requests computed at the same time (default: 4)"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=32, metavar="N", help="requests that may wait for a session (default: 32)"
    )
    parser.add_argument(
        "--language",
        default="English",
        help="spoken language where a client names none, as an English name or a code (default: English)",
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name of this machine; can be repeated"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages that may connect, such as http://localhost:3000; can be repeated",
    )
    parser.add_argument(
        "--allow-fetch",
        nargs="?",
        const="https",
        choices=tuple(SCHEMES),
        help="fetch what requests name by https: address, or also by http:, from public hosts (default: nothing)",
    )
    parser.add_argument(
        "--wyoming",
        nargs="?",
        const=WYOMING_PORT,
        metavar="PORT",
        help=f"serve Home Assistant on PORT of this machine, too (default: {WYOMING_PORT}), or on HOST:PORT for "
        "everybody who can reach it: there is no key",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="time for answers that have begun, after Ctrl-C or SIGTERM (default: 10)",
    )
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    check_extra(arguments)
    check(arguments)
    language = language_name(arguments.language)

    from mlx_gemma4.serve.limits import Limits
    from mlx_gemma4.serve.service import Service
    from mlx_gemma4.serve.web.app import make_app
    from mlx_gemma4.serve.web.run import Beside, Server, open_socket
    from mlx_gemma4.serve.web.sessions import Sessions

    with ExitStack() as sockets:
        where = sockets.enter_context(open_socket(arguments.host, arguments.port))
        wyoming = None
        if arguments.wyoming is not None:
            place = wyoming_address(arguments.wyoming)
            wyoming = sockets.enter_context(open_socket(*place, options=("--wyoming", "--wyoming")))
        service = Service(
            lambda: load_model(arguments, speech_use(MAX_SEGMENT)),
            [model_name(arguments.model or default_model()), *arguments.name],
            most_sessions=arguments.max_sessions,
            most_waiting=arguments.max_waiting,
            language=language,
            load_drafter=lambda: open_drafter(arguments),
            limits=Limits(stop_loops=not arguments.allow_loops),
        )
        service.warm_up()
        sessions = Sessions()
        app = make_app(
            service,
            sessions,
            host=arguments.host,
            key=arguments.api_key,
            names=arguments.allow_host,
            origins=arguments.allow_origin,
            fetches=SCHEMES.get(arguments.allow_fetch, ()),
        )
        beside: list[Beside] = [sessions]
        if wyoming is not None:
            from mlx_gemma4.serve.web.wyoming import WyomingServer

            beside.append(WyomingServer(service, wyoming))

        def started() -> None:
            tell(service.names[0], *where.getsockname()[:2])
            if wyoming is not None:
                note(f"Serving Wyoming at {joined(*wyoming.getsockname()[:2])}")

        server = Server(app, started=started, beside=beside)
        try:
            with Session(server.drain, patience=arguments.drain) as session, session.working():
                server.listen(where)
        finally:
            service.close()
    return session.code


def check_extra(arguments: argparse.Namespace) -> None:
    """Raise an ImportError if a library of the extra is missing."""
    if any(find_spec(name) is None for name in NEEDED):
        raise ImportError(INSTALL)
    if arguments.wyoming is not None and find_spec("wyoming") is None:
        raise ImportError(INSTALL_WYOMING)


def check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if an option is wrong."""
    from mlx_gemma4.serve.web.guard import is_loopback

    if arguments.api_key is not None and not (arguments.api_key.isascii() and arguments.api_key.isprintable()):
        raise ValueError("--api-key must be of printable ASCII characters: it is sent in a header")
    if not is_loopback(arguments.host) and not arguments.api_key:
        raise ValueError(
            f"--host {arguments.host} lets other computers connect: set an --api-key that clients must send, "
            "or leave --host out"
        )
    if not 0 <= arguments.port <= MOST_PORT:
        raise ValueError(f"--port must be from 0 to {MOST_PORT}, got {arguments.port}")
    if arguments.wyoming is not None:
        wyoming_address(arguments.wyoming)
    check_drafts(arguments)
    for option, least in (("max_sessions", 1), ("max_waiting", 0), ("drain", 0)):
        value = getattr(arguments, option)
        if not value >= least:
            raise ValueError(f"--{option.replace('_', '-')} must be at least {least}, got {value:g}")


def model_name(model: str) -> str:
    """What clients call a model: a repo's id, or the name of a folder, whose path is nobody's business."""
    from pathlib import Path

    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def tell(name: str, host: str, port: int) -> None:
    """Say where clients and browsers find the server."""
    note(f"Serving {name} at {address(host, port)}")
    note(f"Open {page_address(host, port)} in a browser to talk to it")


def wyoming_address(text: str) -> tuple[str, int]:
    """The host and the port of PORT or HOST:PORT. Without a host it is this machine alone, whatever --host says.

    Raises:
        ValueError: It is neither.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= MOST_PORT):
        raise ValueError(f"--wyoming must be PORT or HOST:PORT, with a port up to {MOST_PORT}, got {text!r}")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


def address(host: str, port: int) -> str:
    """The base URL for clients."""
    return f"http://{joined(host, port)}/v1"


def page_address(host: str, port: int) -> str:
    """What to type into a browser. Pages of localhost may use the microphone, those of other addresses may not."""
    return joined("localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host, port)


def joined(host: str, port: int) -> str:
    """An address as HOST:PORT."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"
