"""Languages by name and by code: the table for instructions and for text normalizers.

Codes are those of ISO 639, as Whisper and its tools use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

_TABLE = """
af Afrikaans; am Amharic; ar Arabic; as Assamese; az Azerbaijani; ba Bashkir; be Belarusian; bg Bulgarian; bn Bengali;
bo Tibetan; br Breton; bs Bosnian; ca Catalan, Valencian; cs Czech; cy Welsh; da Danish; de German; el Greek;
en English; es Spanish, Castilian; et Estonian; eu Basque; fa Persian, Farsi; fi Finnish; fo Faroese;
fr French; ga Irish; gl Galician; gu Gujarati; ha Hausa; haw Hawaiian; he Hebrew; hi Hindi; hr Croatian;
ht Haitian Creole, Haitian; hu Hungarian; hy Armenian; id Indonesian; is Icelandic; it Italian; ja Japanese;
jv Javanese, jw; ka Georgian; kk Kazakh; km Khmer; kn Kannada; ko Korean; la Latin; lb Luxembourgish, Letzeburgesch;
ln Lingala; lo Lao; lt Lithuanian; lv Latvian; mg Malagasy; mi Maori; mk Macedonian; ml Malayalam; mn Mongolian;
mr Marathi; ms Malay; mt Maltese; my Burmese, Myanmar; ne Nepali; nl Dutch, Flemish; nn Nynorsk;
no Norwegian; nb Bokmal, Bokmål; oc Occitan; pa Punjabi, Panjabi; pl Polish; ps Pashto, Pushto; pt Portuguese;
ro Romanian, Moldavian, Moldovan; ru Russian; sa Sanskrit; sd Sindhi; si Sinhala, Sinhalese; sk Slovak; sl Slovenian;
sn Shona; so Somali; sq Albanian; sr Serbian; su Sundanese; sv Swedish; sw Swahili; ta Tamil; te Telugu; tg Tajik;
th Thai; tk Turkmen; tl Tagalog, Filipino; tr Turkish; tt Tatar; uk Ukrainian; ur Urdu; uz Uzbek; vi Vietnamese;
xh Xhosa; yi Yiddish; yo Yoruba; yue Cantonese; zh Chinese, Mandarin; zu Zulu
"""
"""Code, name, other names."""


def _entries() -> Iterator[tuple[str, str, list[str]]]:
    for line in _TABLE.replace("\n", " ").split(";"):
        code, _, spoken = line.strip().partition(" ")
        name, *others = spoken.split(", ")
        yield code, name, others


def _names() -> dict[str, str]:
    names = {}
    for code, name, others in _entries():
        names.update(dict.fromkeys((code, name.casefold(), *(other.casefold() for other in others)), name))
    return names


def language_codes() -> dict[str, str]:
    """The codes of all languages → their names in English."""
    return {code: name for code, name, _ in _entries()}


LANGUAGES = _names()
"""Codes and names in lower case → the name in English."""


def find_language(text: str) -> str | None:
    """The English name of a language, from its name or code in any case, with or without a region; None if unknown."""
    wanted = " ".join(text.casefold().split())
    code = wanted.replace("_", "-").partition("-")[0]
    return LANGUAGES.get(wanted) or (LANGUAGES.get(code) if len(code) <= 3 else None)


def language_name(text: str) -> str:
    """The English name of a language (``find_language``).

    Raises:
        ValueError: It is not in the table; the message suggests the nearest name.
    """
    name = find_language(text)
    if name is None:
        near = get_close_matches(text.casefold(), LANGUAGES, n=1)
        meant = f"Did you mean {LANGUAGES[near[0]]}? " if near else ""
        raise ValueError(
            f"Unknown language {text!r}. {meant}Use an English name or a code, such as German or de; "
            "for other languages, write your own instruction (--prompt)"
        )
    return name
