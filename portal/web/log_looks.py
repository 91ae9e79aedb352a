"""The looks of a log's text as CSS classes, and the palette behind them: readable on the dark panel of a log.

No page has styles of its own, so each of the 256 colours has a class. `python -m portal.web.log_looks` prints the
stylesheet, which lies in static/job-log-colours.css.
"""

from __future__ import annotations

import sys
from functools import cache

from portal.domain.jobs.log_lines import Look

Colour = tuple[int, int, int]
PANEL: Colour = (13, 19, 29)
INK: Colour = (221, 228, 237)
DARK: Colour = (0, 0, 0)
LIGHT: Colour = (255, 255, 255)
ENOUGH = 4.5  # contrast of text, to one (WCAG 2.2, 1.4.3)
_FIRST_16 = (
    "000000 d2434a 3fae62 cf9f2e 4d86e0 b76ad6 35a9c0 d5dce5 7c8796 ff7b7f 6fd68c f2d56b 86b0ff d79bf0 6fd3e3 ffffff"
)
_STEPS = (0, 95, 135, 175, 215, 255)  # of the colour cube


def colour(number: int) -> Colour:
    """What stands behind the number of a colour: 16 of ours, a cube of 216, and 24 greys, as terminals have them."""
    if number < 16:
        red, green, blue = bytes.fromhex(_FIRST_16.split()[number])
        return red, green, blue
    if number < 232:
        place = number - 16
        return _STEPS[place // 36], _STEPS[place // 6 % 6], _STEPS[place % 6]
    return (8 + 10 * (number - 232),) * 3


def contrast(one: Colour, other: Colour) -> float:
    """How well two colours can be told apart, from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(parts: Colour) -> float:
    red, green, blue = (each / 255 / 12.92 if each <= 10 else ((each / 255 + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def readable(parts: Colour) -> Colour:
    """The colour, as much nearer to white as it must be to be read on the panel."""
    for step in range(0, 101, 2):
        red, green, blue = (round(each + (255 - each) * step / 100) for each in parts)
        if contrast((red, green, blue), PANEL) >= ENOUGH + 0.05:
            return red, green, blue
    return LIGHT


@cache
def classes(look: Look) -> str:
    """The classes of this look, separated by spaces; nothing for plain text."""
    names = [name for name in ("bold", "italic", "underline", "strike") if getattr(look, name)]
    found = [f"t-{name}" for name in names] + _colours(look)
    return " ".join(found)


def _colours(look: Look) -> list[str]:
    """Ink and ground. Whoever wrote the text chose both; what could not be read on its ground is black or white."""
    if look.ground is None and not look.reverse:
        return [f"i{look.ink}"] if look.ink is not None else ["t-dim"] if look.dim else []
    ink, ground = (look.ground, look.ink) if look.reverse else (look.ink, look.ground)
    paint = colour(ground) if ground is not None else INK
    usual = PANEL if look.reverse else INK
    written = colour(ink) if ink is not None else usual
    place = f"g{ground}" if ground is not None else "g-ink"
    if ink is not None and contrast(written, paint) >= ENOUGH:
        return [place, f"o{ink}"]
    return [place, "o-dark" if contrast(DARK, paint) >= contrast(LIGHT, paint) else "o-light"]


def stylesheet() -> str:
    """A rule for every class: inks on the panel (i), grounds (g), and inks on a ground of their own (o)."""
    rules = ["/* Colours of logs. Made by `python -m portal.web.log_looks`; change them there. */"]
    rules += [f".i{number}{{color:{_hex(readable(colour(number)))}}}" for number in range(256)]
    rules += [f".g{number}{{background:{_hex(colour(number))}}}" for number in range(256)]
    rules += [f".o{number}{{color:{_hex(colour(number))}}}" for number in range(256)]
    rules += [
        f".g-ink{{background:{_hex(INK)}}}",
        f".o-dark{{color:{_hex(DARK)}}}",
        f".o-light{{color:{_hex(LIGHT)}}}",
    ]
    return "\n".join(rules) + "\n"


def _hex(parts: Colour) -> str:
    return "#" + bytes(parts).hex()


if __name__ == "__main__":
    sys.stdout.write(stylesheet())
