"""Lines of a log as a terminal would show them: styled spans, with what was overwritten gone and controls named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.ansi import AnsiDecoder
from rich.color import Color, ColorSystem
from rich.style import Style
from rich.text import Text

LONGEST_LINE = 8_192  # characters that a page shows of a line
_READ = 4 * LONGEST_LINE  # characters that are looked at for them; what changes colours takes room too
_OVERWRITES = 64  # how many overwritings of one line are looked at; a progress bar may have many thousands
_LONGEST_CODE = 64

# Whole sequences that say something to a terminal's window and nothing to a reader: titles, links, device strings.
_STRINGS = re.compile(r"\x1b[\]PX^_][^\x1b\x07]*(?:\x07|\x1b\\)")
_BROKEN_STRING = re.compile(r"\x1b(?=[\]PX^_])")
_CODES = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])")
_COLON_COLOUR = re.compile(
    r"(?<![0-9:;])([34]8):(?:(5):(\d{1,3})|(2):(?:\d*:)?(\d{1,3}):(\d{1,3}):(\d{1,3}))(?![0-9:])"
)
_RESET = re.compile(r"\x1b\[0*(?:;0*)*m")
_MOVES = re.compile(r"(\r|\x08|\x1b\[[0-2]?K)")
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) != "\t"} | {0x7F: 0x2421}
_CONTROLS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_BEFORE = {code: name for code, name in _CONTROLS.items() if chr(code) not in "\x1b\r\x08\x07"}
# What turns the direction of reading could make a line say something else than it does.
_BEFORE |= dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029], 0xFFFD)


@dataclass(frozen=True, slots=True)
class Look:
    """How a stretch of text looks. Colours are numbers of the 256 that terminals have; None is the terminal's own.

    `reverse` swaps the two. Text that is concealed is shown: who reads a log wants to see what was written.
    """

    ink: int | None = None
    ground: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False
    reverse: bool = False


PLAIN = Look()


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text with one look."""

    text: str
    look: Look = PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `cut` says that there is more of it than is shown."""

    spans: tuple[Span, ...]
    cut: bool = False

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)


class LineReader:
    """Reads one line after the other; a colour that a line leaves on goes on in the next."""

    def __init__(self) -> None:
        self._decoder = AnsiDecoder()

    def catch_up(self, before: bytes) -> None:
        """Take over the colours that what stands before the first line has left on. Nothing of it is shown."""
        text = before.decode("utf-8", "replace")
        resets = list(_RESET.finditer(text))
        self._decode(_looks_only(text[resets[-1].start() :] if resets else text))

    def read(self, raw: bytes) -> Line:
        """The line of these bytes, without its end. Whatever they are, there is a line for them."""
        cut = False
        if b"\r" not in raw and len(raw) > _READ:
            raw, cut = raw[:_READ], True
        text = raw.decode("utf-8", "replace").translate(_BEFORE)
        if "\x1b" in text:
            text = _BROKEN_STRING.sub("\u241b", _STRINGS.sub("", text))
            text = _CODES.sub(_tamed, text)
        shown = self._overwritten(text) if _MOVES.search(text) else self._decode(text)
        if len(shown) > LONGEST_LINE:
            shown, cut = shown[:LONGEST_LINE], True
        return Line(tuple(_spans(shown)), cut)

    def _decode(self, text: str) -> Text:
        if "\x1b" in text:
            return self._decoder.decode_line(text)
        return Text(text, self._decoder.style)

    def _overwritten(self, text: str) -> Text:
        """What stands in the line at the end, where the writer went back in it and wrote over it, or erased."""
        parts = _MOVES.split(text)
        if len(parts) > 2 * _OVERWRITES:
            skipped = "".join(parts[: -2 * _OVERWRITES - 1])
            self._decode(_looks_only(skipped))
            parts = parts[-2 * _OVERWRITES - 1 :]
        shown, at = Text(), 0
        for number, part in enumerate(parts):
            if number % 2:
                shown, at = _moved(shown, at, part)
            elif part:
                written = self._decode(part[:_READ])
                shown = _put(shown, at, written)
                at += len(written)
        return shown


def _tamed(code: re.Match[str]) -> str:
    """Only what sets a look or erases is left; a number that no terminal knows would be too long to read."""
    if code[2] == "K":
        return code[0] if len(code[1]) < 2 else ""
    if code[2] != "m" or len(code[1]) > _LONGEST_CODE:
        return ""
    return _COLON_COLOUR.sub(lambda found: ";".join(part for part in found.groups() if part), code[0])


def _looks_only(text: str) -> str:
    """The codes of the text that set a look, without the text."""
    return "".join(_tamed(code) for code in _CODES.finditer(text) if code[2] == "m")


def _moved(shown: Text, at: int, move: str) -> tuple[Text, int]:
    match move:
        case "\r":
            return shown, 0
        case "\x08":
            return shown, max(0, at - 1)
        case "\x1b[1K":
            return _put(shown, 0, Text(" " * min(at + 1, len(shown)))), at
        case "\x1b[2K":
            return Text(), at
        case _:
            return shown[:at], at


def _put(shown: Text, at: int, written: Text) -> Text:
    if at >= len(shown):
        result = shown.copy()
        result.append(" " * (at - len(shown)))
        return result.append_text(written)
    result = shown[:at] if at else Text()
    result.append_text(written)
    return result.append_text(shown[at + len(written) :]) if at + len(written) < len(shown) else result


def _spans(text: Text) -> Iterator[Span]:
    """The stretches of the text, in order and without a gap."""
    at, plain = 0, text.plain.translate(_CONTROLS)
    own = _look(text.style) if isinstance(text.style, Style) else PLAIN
    for span in sorted(text.spans, key=lambda each: each.start):
        start, end = max(at, span.start), min(span.end, len(plain))
        if end <= start:
            continue
        if start > at:
            yield Span(plain[at:start], own)
        yield Span(plain[start:end], _look(span.style) if isinstance(span.style, Style) else own)
        at = end
    if at < len(plain):
        yield Span(plain[at:], own)


_looks: dict[Style, Look] = {}


def _look(style: Style) -> Look:
    known = _looks.get(style)
    if known is None:
        known = Look(
            ink=_number(style.color),
            ground=_number(style.bgcolor),
            bold=bool(style.bold),
            dim=bool(style.dim),
            italic=bool(style.italic),
            underline=bool(style.underline or style.underline2),
            strike=bool(style.strike),
            reverse=bool(style.reverse),
        )
        if len(_looks) < 4096:
            _looks[style] = known
    return known


def _number(colour: Color | None) -> int | None:
    """The nearest of the 256 colours; a page has a class for each, and no room for 16 millions."""
    return colour.downgrade(ColorSystem.EIGHT_BIT).number if colour else None
