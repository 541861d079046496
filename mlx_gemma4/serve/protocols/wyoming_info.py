"""What a Wyoming server says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from wyoming.info import AsrModel, AsrProgram, Attribution, HandleModel, HandleProgram, Info

from mlx_gemma4.programs.languages import language_codes

PROGRAM = "mlx_gemma4"
GEMMA = Attribution("Google", "https://ai.google.dev/gemma")


def server_info(names: Sequence[str], version: str, *, hears: bool) -> Info:
    """The programs for speech and for text commands, each with the model under its names.

    Args:
        names: What clients may call the model.
        version: Of this package.
        hears: Whether the checkpoint takes sound.
    """
    languages = list(language_codes())
    asr = AsrProgram(
        name=PROGRAM,
        attribution=GEMMA,
        installed=True,
        description="Speech to text with Gemma 4, computed while it arrives",
        version=version,
        models=[AsrModel(name, GEMMA, True, "Gemma 4", None, languages) for name in names],
        supports_transcript_streaming=True,
    )
    handle = HandleProgram(
        name=PROGRAM,
        attribution=GEMMA,
        installed=True,
        description="Conversations with Gemma 4",
        version=version,
        models=[HandleModel(name, GEMMA, True, "Gemma 4", None, languages) for name in names],
        supports_handled_streaming=True,
    )
    return Info(asr=[asr] if hears else [], handle=[handle])
