"""Damage to files that knows their structure: values of JSON, sizes and bodies of chunks, headers of tensors, bytes."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

DEEP = "@deep@"
NUMBERS = (0, -1, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**9, 10**18, 10**400)
FLOATS = (0.5, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "a", "../x", "/etc/passwd", "a" * 5000, "\x1b[31m\n\r", "\ud800", "\0", "é", "<|turn>", "4", "model", DEEP)
TEMPLATES = (
    "{{ 'ab' * N }}",
    "{{ ['a'] * N }}",
    "{% for i in range(N) %}@{% endfor %}",
    "{% for i in messages %}@{% endfor %}",
    "{% if messages %}@{% else %}@{% endif %}",
    "{% set ns = namespace(x='a') %}{% for i in range(N) %}{% set ns.x = ns.x ~ ns.x %}@{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(N) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}@",
    "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}@{% endmacro %}{{ f(N) }}",
    "{{ '%Nd' % 1 }}@",
    "{{ '{:N}'.format(1) }}@",
    "{{ 'a'|center(N) }}@",
    "{{ 'a\nb'|indent(N) }}@",
    "{{ 'aaaa'|replace('a', 'b' * N) }}@",
    "{{ ('a,' * N).split(',')|join('b' * N) }}@",
    "{{ messages|tojson(indent=N) }}@",
    "{{ N ** N }}@",
    "{{ range(N)|map('string')|list|sort|join }}@",
    "{{ messages[N:][::-1] }}@",
    "{{ lipsum(n=N) }}@",
    "{{ strftime_now('%Nd') }}@",
    "{{ raise_exception('a' * N) }}@",
    "{{ ''.__class__ }}@",
    "{{ messages.append(1) }}@",
    "{% filter upper %}@{% endfilter %}",
    "{% set x %}@{% endset %}{{ x * N }}",
    "{% include 'x' %}@",
    "{% raw %}@{% endraw %}{#@#}",
    "{{ undefined.a.b }}@",
    "{{",
    "{% endfor %}",
)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Flipped bytes, numbers that count something, what is missing, and what comes twice."""
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not damaged:
            break
        at, size = random.randrange(len(damaged)), random.choice((1, 2, 4, 16, 256))
        what = random.randrange(8)
        if what == 0:
            damaged[at] ^= 1 << random.randrange(8)
        elif what == 1:
            damaged[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif what == 2:
            damaged = damaged[:at]
        elif what == 3:
            del damaged[at : at + size]
        elif what == 4:
            damaged[at:at] = damaged[at : at + size]
        elif what == 5:
            damaged[at:at] = random.randbytes(size)
        elif what == 6:
            damaged[at : at + size] = bytes(len(damaged[at : at + size]))
        else:
            damaged[at : at + 4] = _number(random, random.choice(("<", ">")), 4)
    return bytes(damaged)


def _number(random: Random, endian: str, width: int) -> bytes:
    value = random.choice((0, 1, 2, 3, 0x7F, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, random.randrange(2**32)))
    return (value & (256**width - 1)).to_bytes(width, "little" if endian == "<" else "big")


def mutate_json(data: bytes, random: Random) -> bytes:
    """Another value somewhere, of another type, size or depth; a key that lacks or comes twice; or damaged text."""
    if random.random() < 0.1:
        return mutate_bytes(data, random)
    raw = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        raw = mutate_value(raw, random)
    text = json.dumps(raw)
    depth = random.choice((90, 500, 5000, 100_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    text = text.replace(json.dumps(DEEP), opening * depth + "1" + closing * depth)
    if random.random() < 0.05:
        text = "{" + text[1:-1] + ", " + text[1:]
    return text.encode()


def mutate_value(value: Any, random: Random) -> Any:
    """A tree with another value at a random place; each level is as likely to change as the next."""
    if isinstance(value, (dict, list)) and value and random.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = random.choice(keys)
        changed = value.copy()
        what = random.random()
        if what < 0.06:
            del changed[key]
        elif what < 0.12:
            other = random.choice(keys)
            changed[key], changed[other] = changed[other], changed[key]
        elif what < 0.16 and isinstance(changed, dict):
            changed[random.choice((*TEXTS, f"{key}x"))] = changed.pop(key)
        else:
            changed[key] = mutate_value(changed[key], random)
        return changed
    return _another(value, random)


def _another(value: Any, random: Random) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.4:
        return random.choice((value + 1, value - 1, -value, value * 2, value * 1000, str(value), [value], bool(value)))
    if isinstance(value, str) and random.random() < 0.3:
        return random.choice((value[:-1], value * 2, value.upper(), [value], {"content": value}, value + "\n"))
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(NUMBERS) * random.choice((1, 1, -1))
    if kind == 1:
        return random.choice(FLOATS)
    if kind == 2:
        return random.choice(TEXTS)
    if kind == 3:
        return random.choice((None, True, False))
    if kind == 4:
        return random.choice(([], {}, [[]], [None], [value] * 3, [value] * 3000, {"a": value}, [{}], {"": {}}))
    return [_another(value, random) for _ in range(random.randrange(4))]


def mutate_template(data: bytes, random: Random) -> bytes:
    """Programs that grow, loop and recurse, in each other and in the template."""
    if random.random() < 0.2:
        return mutate_bytes(data, random)
    text = data.decode()
    snippet = "@"
    for _ in range(random.choice((1, 1, 2, 3))):
        piece = random.choice(TEMPLATES).replace("N", str(random.choice((0, 1, 20, 300, 9999, 99999, 10**9, 10**18))))
        snippet = snippet.replace("@", piece, 1) if "@" in snippet else snippet + piece
    at = random.choice((0, len(text), random.randrange(len(text) + 1)))
    return (text[:at] + snippet.replace("@", "") + text[at:]).encode()


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """Another header, another length of it, or other bytes."""
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.15:
        value = random.choice((0, 1, length - 1, length + 1, len(data), 2**24, 2**32, 2**63, 2**64 - 1))
        return value.to_bytes(8, "little") + data[8:]
    if random.random() < 0.1:
        return mutate_bytes(data[: 8 + length], random) + data[8 + length :]
    header = mutate_json(data[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


@dataclass(frozen=True)
class Chunk:
    """A part of a file that says how long it is."""

    start: int
    size_at: int
    size_width: int
    endian: str
    body: int
    stop: int


def riff(data: bytes, endian: str = "<", at: int = 12) -> Iterator[Chunk]:
    """WAV, AVI and WebP; AIFF with the other endian."""
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(f"{endian}I", data, at + 4)
        stop = min(at + 8 + size + size % 2, len(data))
        yield Chunk(at, at + 4, 4, endian, at + 8, stop)
        if data[at : at + 4] == b"LIST":
            yield from (chunk for chunk in riff(data[:stop], endian, at + 12))
        at = stop


def aiff(data: bytes) -> Iterator[Chunk]:
    return riff(data, ">")


def png(data: bytes) -> Iterator[Chunk]:
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield Chunk(at, at, 4, ">", at + 8, min(at + 12 + size, len(data)))
        at += 12 + size


def jpeg(data: bytes) -> Iterator[Chunk]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (size,) = struct.unpack_from(">H", data, at + 2)
        yield Chunk(at, at + 2, 2, ">", at + 4, min(at + 2 + size, len(data)))
        at += 2 + size


def mp4(data: bytes, at: int = 0, stop: int | None = None) -> Iterator[Chunk]:
    """The boxes of MP4 and QuickTime, those that hold others opened."""
    stop = len(data) if stop is None else stop
    while at + 8 <= stop:
        (size,) = struct.unpack_from(">I", data, at)
        end = min(at + max(size, 8), stop)
        yield Chunk(at, at, 4, ">", at + 8, end)
        if data[at + 4 : at + 8] in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf"):
            yield from mp4(data, at + 8, end)
        at = end


def flac(data: bytes) -> Iterator[Chunk]:
    at, last = 4, False
    while at + 4 <= len(data) and not last:
        last = data[at] > 127
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        yield Chunk(at, at + 1, 3, ">", at + 4, min(at + 4 + size, len(data)))
        at += 4 + size


def ogg(data: bytes) -> Iterator[Chunk]:
    at = data.find(b"OggS")
    while at >= 0:
        following = data.find(b"OggS", at + 4)
        yield Chunk(at, at + 26, 1, "<", at + 6, len(data) if following < 0 else following)
        at = following


LAYOUTS: dict[str, Callable[[bytes], Iterator[Chunk]]] = {
    ".wav": riff,
    ".avi": riff,
    ".webp": riff,
    ".aiff": aiff,
    ".png": png,
    ".jpg": jpeg,
    ".mp4": mp4,
    ".m4a": mp4,
    ".mov": mp4,
    ".flac": flac,
    ".ogg": ogg,
}


def mutate_media(data: bytes, suffix: str, random: Random) -> bytes:
    """Chunks of other sizes, twice, not at all, elsewhere, or with other content; or damaged bytes anywhere."""
    chunks = list(LAYOUTS.get(suffix, lambda _: iter(()))(data))
    if not chunks or random.random() < 0.3:
        # headers are at the beginning: most damage should be there
        end = random.choice((64, 512, len(data)))
        return mutate_bytes(data[:end], random) + data[end:]
    chunk = random.choice(chunks)
    whole = data[chunk.start : chunk.stop]
    what = random.randrange(6)
    if what == 0:
        size = _number(random, chunk.endian, chunk.size_width)
        damaged = data[: chunk.size_at] + size + data[chunk.size_at + chunk.size_width :]
    elif what == 1:
        damaged = data[: chunk.start] + data[chunk.stop :]
    elif what == 2:
        damaged = data[: chunk.stop] + whole * random.choice((1, 3, 100)) + data[chunk.stop :]
    elif what == 3:
        other = random.choice(chunks)
        damaged = data[: other.start] + whole + data[other.start :]
    else:
        damaged = data[: chunk.body] + _fields(data[chunk.body : chunk.stop], chunk.endian, random) + data[chunk.stop :]
    return _with_checksums(damaged) if suffix == ".png" and random.random() < 0.9 else damaged


def _fields(body: bytes, endian: str, random: Random) -> bytes:
    """Another number at a place where numbers are."""
    if random.random() < 0.3:
        return mutate_bytes(body, random)
    damaged, width = bytearray(body), random.choice((1, 2, 4, 4))
    at = random.randrange(min(len(body), 64) // width + 1) * width
    damaged[at : at + width] = _number(random, endian, width)
    return bytes(damaged)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks pass the test of their checksums."""
    damaged = bytearray(data)
    for chunk in png(data):
        if chunk.stop - chunk.body >= 4:
            checksum = zlib.crc32(data[chunk.start + 4 : chunk.stop - 4])
            damaged[chunk.stop - 4 : chunk.stop] = checksum.to_bytes(4, "big")
    return bytes(damaged)
