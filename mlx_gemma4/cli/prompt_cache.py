"""``generate --prompt-cache FILE``: the computed prompt of an earlier call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.notes import note

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.inputs.prompt import Prompt
    from mlx_gemma4.session import Session


class PromptCache:
    """The file, if there is one.

    An existing file is read and not changed: other questions about the same document reuse it, too.

    Args:
        path: None for no file.

    Attributes:
        session: Holds the first ``kept`` positions of the prompt; None without a file.
        kept: How many positions of the prompt need not be computed.
        snapshots: Rows of the rest before which to take snapshots, so that another prompt can go on from there.

    Raises:
        ValueError: The file is something else, or cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self.session: Session | None = None
        self.kept = 0
        self.snapshots: list[int] = []
        if self._path is not None:
            from mlx_gemma4.decoder.saved_file import check_kind, check_target

            if self._path.exists():
                check_kind(self._path, "session")
            else:
                check_target(self._path)

    @contextmanager
    def opened(self, model: Model, processor: Processor, prompt: Prompt) -> Iterator[None]:
        """A block in which the prompt is computed and answered. A new file is written at its end, or when it is left.

        Raises:
            ValueError: The file is damaged, or belongs to another model.
        """
        if self._path is None:
            yield
        elif self._path.exists():
            self._reuse(self._path, model, prompt)
            yield
        else:
            yield from self._written(self._path, model, processor, prompt)

    def _reuse(self, path: Path, model: Model, prompt: Prompt) -> None:
        from mlx_gemma4.session import Session

        self.session = Session.load(model, path)
        common = self.session.content.common_prefix(prompt)
        self.kept = self.session.keep(min(common, len(prompt) - 1))
        note(f"{self.kept} of {len(prompt)} prompt tokens were reused from {path}.")

    def _written(self, path: Path, model: Model, processor: Processor, prompt: Prompt) -> Iterator[None]:
        from mlx_gemma4.prefixes.landmarks import landmarks
        from mlx_gemma4.session import Session

        self.session = Session(model)
        self.snapshots = sorted({*landmarks(prompt, processor.stop_ids), len(prompt)})
        try:
            yield
        finally:
            if self.session.content.common_prefix(prompt) == len(prompt):  # not if its computation was interrupted
                self.session.rewind(len(prompt))
                self.session.save(path)
                note(f"{len(prompt)} prompt tokens were saved to {path}.")
