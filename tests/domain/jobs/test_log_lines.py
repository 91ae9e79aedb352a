"""Lines of a log: colours, what was overwritten, what no terminal understands, and bytes that mean harm."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.jobs.log_lines import LONGEST_LINE, PLAIN, LineReader, Look, Span


def read(raw: bytes) -> str:
    return LineReader().read(raw).text


def looks(raw: bytes) -> list[tuple[str, Look]]:
    return [(span.text, span.look) for span in LineReader().read(raw).spans]


def test_a_plain_line_is_one_span() -> None:
    assert LineReader().read(b"hello\tworld").spans == (Span("hello\tworld", PLAIN),)
    assert LineReader().read(b"").spans == ()


@pytest.mark.parametrize(
    ("code", "look"),
    [
        (b"31", Look(ink=1)),
        (b"1;32", Look(ink=2, bold=True)),
        (b"97;101", Look(ink=15, ground=9)),
        (b"38;5;208", Look(ink=208)),
        (b"48;5;17", Look(ground=17)),
        (b"38;2;255;0;0", Look(ink=196)),
        (b"38:2::255:0:0", Look(ink=196)),
        (b"38:5:208", Look(ink=208)),
        (b"3;4;9;2;7", Look(italic=True, underline=True, strike=True, dim=True, reverse=True)),
        (b"8", PLAIN),  # concealed, which a log has no use for
        (b"5", PLAIN),
    ],
)
def test_codes_are_looks(code: bytes, look: Look) -> None:
    assert looks(b"a\x1b[" + code + b"mb\x1b[0mc") == ([("a", PLAIN), ("b", look), ("c", PLAIN)])


def test_a_colour_that_is_left_on_goes_on_in_the_next_line() -> None:
    reader = LineReader()
    reader.read(b"\x1b[33mwarning")
    assert reader.read(b"still").spans == (Span("still", Look(ink=3)),)
    assert reader.read(b"\x1b[mno more").spans == (Span("no more", PLAIN),)


@pytest.mark.parametrize(
    ("before", "look"),
    [
        (b"\x1b[31mred\n", Look(ink=1)),
        (b"\x1b[31mred\x1b[0m\n", PLAIN),
        (b"\x1b[1m\x1b[0;m\x1b[44mx\n", Look(ground=4)),
        (b"\x1b[31m\r\x1b[0K\x1b[1mx\n", Look(ink=1, bold=True)),
        (b"\x1b[" + b"9" * 5000 + b"m\n", PLAIN),
    ],
)
def test_reading_goes_on_in_the_colours_of_what_stands_before(before: bytes, look: Look) -> None:
    reader = LineReader()
    reader.catch_up(before)
    assert reader.read(b"x").spans == (Span("x", look),)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"10%\r50%\r100%", "100%"),
        (b"hello world\rHELLO", "HELLO world"),
        (b"done\r", "done"),  # a file with Windows line ends
        (b"long words\rshort\x1b[K", "short"),
        (b"long words\r\x1b[2Kshort", "short"),
        (b"abcdef\rxy\x1b[1K", "   def"),
        (b"abc\x08\x08X", "aXc"),
        (b"\x08\x08a", "a"),
        (b"a\x1b[2Kb", " b"),
        (b"spinner |\x08/\x08-\x08ok", "spinner ok"),
    ],
)
def test_what_was_overwritten_is_gone(raw: bytes, shown: str) -> None:
    assert read(raw) == shown


def test_what_was_overwritten_in_part_keeps_its_colours() -> None:
    assert looks(b"\x1b[31mred red\r\x1b[32mgr") == [("gr", Look(ink=2)), ("d red", Look(ink=1))]


def test_a_progress_bar_of_many_steps_shows_its_last() -> None:
    assert read(b"".join(b"\r%d of 100000" % step for step in range(100_001))) == "100000 of 100000"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b]8;;https://example.com\x1b\\words\x1b]8;;\x1b\\", "words"),
        (b"\x1b]8;;https://example.com\x07words\x1b]8;;\x07", "words"),
        (b"\x1b]0;a title\x07text", "text"),
        (b"\x1bPsomething\x1b\\text", "text"),
        (b"\x1b]8;;https://example.com with no end", "␛]8;;https://example.com with no end"),
        (b"\x1b[2J\x1b[H\x1b[?25lup\x1b[3A", "up"),
        (b"\x1b(Btext", "text"),
        (b"cut off \x1b[38;5", "cut off ␛[38;5"),
        (b"cut off \x1b", "cut off ␛"),
        (b"\x1b[" + b"9" * 6000 + b"mtext", "text"),
        (b"nul \x00 bell \x07 del \x7f", "nul ␀ bell  del ␡"),
        (b"\xff\xfe caf\xc3\xa9", "\ufffd\ufffd café"),
        ("turned \u202etxt".encode(), "turned \ufffdtxt"),
        ("next\u2028line\x85".encode(), "next\ufffdline\ufffd"),
    ],
)
def test_what_is_no_text_is_left_out_or_named(raw: bytes, shown: str) -> None:
    assert read(raw) == shown


def test_a_very_long_line_is_cut_and_says_so() -> None:
    line = LineReader().read(b"x" * 1_000_000)
    assert (line.text, line.cut) == ("x" * LONGEST_LINE, True)
    assert not LineReader().read(b"x" * LONGEST_LINE).cut
    assert LineReader().read(b"x\r" + b"y" * 100_000).cut


@pytest.mark.parametrize(
    "unit", [b"\x1b", b"\x1b]", b"\x1b[", b"\x1b[1m", b"\ra", b"\x08a", b"\x1b[Ka", b"0;", b"\x1b]8;;\x07", b"\x1bP"]
)
def test_no_line_takes_long(unit: bytes) -> None:
    began = time.process_time()
    LineReader().read(unit * (512 * 1024 // len(unit)))
    assert time.process_time() - began < 1


SNIPPETS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"\x1b[", b"\x1b]", b"m", b";", b"\r", b"\x08", b"\x1b[0K", b"\x1b[31m", b"38;5;", b"<b>", "é²".encode()]
    ),
)


@given(st.lists(SNIPPETS, max_size=30).map(b"".join))
def test_every_line_can_be_read_and_holds_no_control(raw: bytes) -> None:
    line = LineReader().read(raw.replace(b"\n", b""))
    assert all(span.text for span in line.spans)
    assert not [each for each in line.text if each != "\t" and (ord(each) < 32 or 127 <= ord(each) < 160)]


@given(st.lists(SNIPPETS, max_size=10).map(b"".join), st.lists(SNIPPETS, max_size=10).map(b"".join))
def test_a_reset_ends_whatever_was_before(one: bytes, two: bytes) -> None:
    reader = LineReader()
    reader.read(one.replace(b"\n", b""))
    assert reader.read(b"\x1b[0m" + two).spans == LineReader().read(b"\x1b[0m" + two).spans
