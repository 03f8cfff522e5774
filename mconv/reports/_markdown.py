"""The one writer of Markdown: what it returns consists of the program's own words, and of values
that it has escaped.

A :class:`Markdown` cannot be made of a value in any other way, and is no text, so that nothing can
be put beside it unescaped. Templates are literals of this package, which a test holds it to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mconv.errors import one_line

MAX_NAME = 120
LONGEST = 600
_ACTIVE = set('\\`*_{}[]#!|<>&@~:"$^')
_FIELD = re.compile(r"\{\}")
JOINER = "&#8288;"  # the word joiner, which is not seen


class Markdown:
    """A piece of Markdown that is safe to be shown.

    Attributes:
        source: Its text.
    """

    __slots__ = ("source",)

    def __init__(self, source: str) -> None:
        """Use :func:`fill`, :func:`cut` and :func:`join`; they alone call this."""
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __bool__(self) -> bool:
        return bool(self.source)

    def __str__(self) -> str:
        raise TypeError("a piece of Markdown is written by render() alone")


def escape(text: str, limit: int = MAX_NAME) -> str:
    """Return text that GitHub's Markdown shows as it is.

    Every character with a meaning becomes a numeric entity, so that no HTML, table cell, link,
    mention, issue number or emphasis can come of it. A word joiner after ``@`` and ``#`` keeps
    GitHub's filters, which run after entities are resolved, from making mentions and references; so
    does one inside ``://``, before ``www`` and in ``GH-1``.
    """
    escaped = []
    line = shorten(text, limit)
    if not line:  # an item of a list with nothing in it would underline what stands above it
        return JOINER
    for character, after in zip(line, f"{line[1:]} ", strict=False):
        if character == ":" and after == " ":  # neither a place nor a picture
            escaped.append(character)
            continue
        escaped.append(f"&#{ord(character)};" if character in _ACTIVE else character)
        if character in "@#:":
            escaped.append(JOINER)
    words = "".join(escaped)
    words = re.sub(r"(?i)ww(?=w)", lambda match: f"{match[0]}{JOINER}", words)
    words = re.sub(r"(?i)\bGH-(?=\d)", lambda match: f"{match[0]}{JOINER}", words)
    # a list, a heading or a rule at the beginning of a line
    return re.sub(r"^(\s*)([-+=]|\d+[.)]\s)", rf"\1{JOINER}\2", words)


def shorten(text: str, limit: int) -> str:
    """Return one printable line of at most ``limit`` characters."""
    line = one_line(text, limit + 1)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def fill(template: str, *values: object) -> Markdown:
    """Return a template, with a value in place of each ``{}``: escaped, unless it is Markdown."""
    parts = _FIELD.split(template)
    if len(parts) != len(values) + 1:
        raise ValueError(f"{template!r} takes {len(parts) - 1} values, not {len(values)}")
    source = parts[0]
    for value, after in zip(values, parts[1:], strict=True):
        source += value.source if isinstance(value, Markdown) else escape(str(value), LONGEST)
        source += after
    return Markdown(source)


def cut(value: str, limit: int = MAX_NAME) -> Markdown:
    """Return a value of at most ``limit`` characters."""
    return Markdown(escape(value, limit))


def join(separator: str, parts: Iterable[Markdown | str]) -> Markdown:
    """Return parts with a literal between them; those that are text are escaped."""
    pieces = [part.source if isinstance(part, Markdown) else escape(part) for part in parts]
    return Markdown(separator.join(pieces))


def link(words: str, url: str) -> Markdown:
    """Return a link to a page that the program itself names; of another address than https only
    ``words``."""
    if not url.startswith("https://") or set(url) & set(" ()<>\"'\\`|"):
        return cut(words)
    return Markdown(f"[{escape(words)}]({url})")


def render(lines: Iterable[Markdown]) -> str:
    """Return lines as a text."""
    return "\n".join(line.source for line in lines)
