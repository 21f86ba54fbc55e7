"""Output that every terminal and every pipe can take: what its encoding lacks is written in readable ASCII."""

from __future__ import annotations

import codecs
import sys
import unicodedata

#: Signs that Unicode itself does not spell in ASCII.
SPELLED = {
    "→": "->",
    "←": "<-",
    "×": "x",
    "−": "-",
    "–": "-",
    "—": "-",
    "±": "+-",
    "·": "*",
    "•": "*",
    "≠": "!=",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "∞": "infinity",
    "°": " degrees",
    "§": "section ",
    "µ": "u",
    "“": '"',
    "”": '"',
    "„": '"',
    "‘": "'",
    "’": "'",
}
#: An ASCII stream has this encoding: one that is called ascii click takes for misconfigured, and writes UTF-8 to it.
ASCII = "roadmap-ascii"


def spell(character: str) -> str:
    """A character in ASCII: ``->``, ``sigma``, ``e`` of ``é``; its escape where it has no readable spelling."""
    if character in SPELLED:
        return SPELLED[character]
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        return "-" if name.endswith("HORIZONTAL") else "|" if name.endswith("VERTICAL") else "+"
    if name.startswith("GREEK"):
        word = name.partition("LETTER ")[2].split(" ")[0].lower()
        return word.capitalize() if "CAPITAL" in name else word
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


def write_readably() -> None:
    """Have standard output and standard error spell whatever their encoding lacks, rather than fail at it."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # none of a stream in memory
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            reconfigure(encoding=ASCII if is_ascii else stream.encoding, errors="spell")


def as_written(text: str) -> str:
    """A text as standard output will have it, to be counted before it is written."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "spell").decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(spell, error.object[error.start : error.end])), error.end


def _ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        ASCII,
    )


codecs.register_error("spell", _replace)
codecs.register(_ascii)
