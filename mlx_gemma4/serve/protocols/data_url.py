"""Media inside of requests: base64, alone or in a ``data:`` URL. Nothing is fetched here, and no file is opened."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from mlx_gemma4.serve.protocols.failure import Failure, wrong

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def read_data_url(url: str, where: str) -> bytes:
    """The bytes of a ``data:`` URL.

    Raises:
        Failure: It is another kind of address, or broken. The message does not repeat it: it may be long, or private.
    """
    if url[:5].lower() != "data:":
        raise _refused(url, where)
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise wrong(where, f"{where} is a data: URL without a comma; write data:image/png;base64,…")
    if head.lower().endswith(";base64"):
        return decode_base64(data, where)
    return unquote_to_bytes(data)


def decode_base64(text: str, where: str) -> bytes:
    """Bytes written as base64; line breaks are allowed, and missing padding.

    Raises:
        Failure: It is something else, or empty.
    """
    plain = "".join(text.split())
    if "%" in plain:
        plain = unquote_to_bytes(plain).decode("latin-1")
    plain = plain.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise wrong(where, f"{where} is not valid base64") from None
    if not data:
        raise wrong(where, f"{where} is empty")
    return data


def _refused(url: str, where: str) -> Failure:
    scheme = _SCHEME.match(url)
    kind = "a path" if scheme is None else f"an address of the kind {scheme[0][:20]}"
    is_web = scheme is not None and scheme[0].lower() in ("https:", "http:")
    what, remedy = ("fetches nothing", ", or start it with --allow-fetch") if is_web else ("opens no files", "")
    return wrong(
        where,
        f"{where} is {kind}. This server {what}: send the data itself, as data:…;base64,…{remedy}",
        code="unsupported_url",
    )
