"""A checkpoint's vocabulary as llguidance takes it: the bytes of each token, and which tokens are control tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.text.tokenizer import Tokenizer
from mlx_gemma4.outputs.channels import TURNS
from mlx_gemma4.outputs.grammar.constraint import library

if TYPE_CHECKING:
    import llguidance

NEVER = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))
"""Bytes that UTF-8 does not have."""
MARKER = b"\xff"
"""Begins a control token in llguidance's vocabularies."""


class Vocabulary:
    """The tokens that a model may choose. Making one takes seconds for 262,144 tokens: see ``vocabulary``.

    Control tokens are no part of the texts that a grammar allows; a Lark grammar names them (``<|tool_call>``).
    Suppressed tokens cannot be named.

    Attributes:
        size: How many ids the model knows.
        stop_ids: The tokens that end an answer.
        end_id: What ends an answer that can only end.
        tokenizer: As llguidance takes it.
        allowed: [W] uint32, the bits of the ids that are neither suppressed nor end an answer (``words``).
        stops: [W] uint32, the bits of those that end an answer.

    Raises:
        ValueError: The vocabulary cannot spell every text, or no token ends an answer.
        ImportError: llguidance is not installed.
    """

    def __init__(self, processor: Processor) -> None:
        self.size = processor.config.text_config.vocab_size
        suppressed = {token_id for token_id in processor.suppressed_ids if token_id < self.size}
        self.stop_ids = sorted({token_id for token_id in processor.stop_ids if token_id < self.size} - suppressed)
        if not self.stop_ids:
            raise ValueError("An answer of a given form needs a token that ends it, and the checkpoint names none")
        end = processor.tokenizer.token_id(TURNS[1])
        self.end_id: int = end if end in self.stop_ids else self.stop_ids[0]
        self.allowed = ~self.words([*suppressed, *self.stop_ids])
        self.stops = self.words(self.stop_ids)
        spelled = _Spelled(processor.tokenizer, self.size, suppressed, self.stop_ids)
        self.tokenizer: llguidance.LLTokenizer = library().LLTokenizer(
            library().TokenizerWrapper(spelled), eos_token=self.stop_ids
        )

    def words(self, token_ids: Collection[int]) -> np.ndarray:
        """[W] uint32 with the bits of ``token_ids`` set: a word has 32 ids, the lowest bit first."""
        words = np.zeros(-(-self.size // 32), dtype=np.uint32)
        for token_id in token_ids:
            words[token_id // 32] |= np.uint32(1 << (token_id % 32))
        return words


class _Spelled:
    """What llguidance asks of a tokenizer. It does not know the ``Vocabulary``: Python cannot free a cycle in Rust."""

    def __init__(self, tokenizer: Tokenizer, size: int, suppressed: Collection[int], stop_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._spellings = tokenizer.spellings(size)
        self._suppressed = suppressed
        never = {*suppressed, *stop_ids}
        self._bytes = {
            spelling[0]: token_id
            for token_id, spelling in enumerate(self._spellings)
            if spelling is not None and len(spelling) == 1 and token_id not in never
        }
        lacking = [byte for byte in range(0x100) if byte not in NEVER and byte not in self._bytes]
        if lacking:
            raise ValueError(
                f"The vocabulary cannot spell every text, which an answer of a given form needs: it has no token for "
                f"{len(lacking)} of the bytes, the first of which is 0x{lacking[0]:02X}"
            )
        control = {*(token_id for token_id, spelling in enumerate(self._spellings) if spelling is None), *stop_ids}
        named = {token_id: tokenizer.token(token_id) for token_id in control - set(suppressed)}
        self.special_token_ids = sorted(token_id for token_id, name in named.items() if name)
        self.tokens = [
            (named.get(token_id) or "").encode() if token_id in control else _text(spelling)
            for token_id, spelling in enumerate(self._spellings)
        ]
        self.eos_token_id = stop_ids[0]
        self.bos_token_id = None

    def __call__(self, text: bytes) -> list[int]:
        """The ids of text that must come next: as in a prompt, but without suppressed tokens."""
        ids = self._tokenizer.encode(text.decode())
        return [part for token_id in ids for part in self._parts(token_id)]

    def _parts(self, token_id: int) -> list[int]:
        """One id; of a token that may not be chosen, the ids of its bytes."""
        if token_id >= len(self._spellings):
            spelling = self._tokenizer.decode([token_id]).encode()
        elif token_id in self._suppressed:
            spelling = self._spellings[token_id] or b""
        else:
            return [token_id]
        return [self._bytes[byte] for byte in spelling]


def _text(spelling: bytes | None) -> bytes:
    return b"" if spelling is None or spelling.startswith(MARKER) else spelling


_MADE: WeakKeyDictionary[Processor, Vocabulary] = WeakKeyDictionary()


def vocabulary(processor: Processor) -> Vocabulary:
    """The vocabulary of a processor, made once.

    Raises:
        ValueError: As for ``Vocabulary``.
        ImportError: llguidance is not installed.
    """
    if processor not in _MADE:
        _MADE[processor] = Vocabulary(processor)
    return _MADE[processor]
