"""Sources of sound, as commands open them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import channel, raw_format

if TYPE_CHECKING:
    from mlx_gemma4.live.hear.sources import Source


INPUT_HELP = "a recording, played at its own pace, a pipe, or - for stdin (default: the microphone)"


@contextmanager
def open_source(arguments: argparse.Namespace) -> Iterator[Source]:
    """The recording, the pipe or the microphone that the options name."""
    if arguments.input is not None and arguments.device is not None:
        raise ValueError(f"Use --input or --device, not both ({arguments.input}, {arguments.device})")
    raw = raw_format(arguments)
    if arguments.input is not None:
        from mlx_gemma4.live.hear.sources import open_recording

        yield open_recording(arguments.input, fast=arguments.fast, channel=channel(arguments), raw=raw)
    elif raw is not None:
        raise ValueError(f"--raw {raw.encoding} is for a recording: name one with --input, or - for stdin")
    else:
        from mlx_gemma4.live.hear.microphone import Microphone

        with Microphone(arguments.device, channel=channel(arguments), tell=note) as microphone:
            yield microphone
