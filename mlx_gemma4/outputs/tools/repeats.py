"""Detects that calls bring nothing new: the same calls with the same results, again and again.

    step     1     2     3     4     5     6
    calls    a     b     a     b     a     c        the results are as before
    new      yes   yes   no    no    no    yes
    stale    0     0     1     2     3     0

A result that differs from before, as that of a clock or a camera does, is new; so is any other call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b

from mlx_gemma4.outputs.tools.parallel import Returned


class Repeats:
    """Counts steps that bring nothing new.

    Attributes:
        stale: How many there were in a row.
    """

    def __init__(self) -> None:
        self.stale = 0
        self._seen: set[bytes] = set()

    def take(self, returned: Sequence[Returned]) -> int:
        """Take the results of a step; return ``stale``."""
        keys = {_key(each) for each in returned}
        self.stale = self.stale + 1 if keys <= self._seen else 0
        self._seen |= keys
        return self.stale


def _key(returned: Returned) -> bytes:
    call, result = returned.call, returned.result
    digest = blake2b(digest_size=16)
    written = json.dumps([call.name, call.arguments, result.text], sort_keys=True, default=str)
    digest.update(written.encode("utf-8", "surrogatepass"))
    for part in result.media:
        digest.update(part[part["type"]].tobytes())
    return digest.digest()
