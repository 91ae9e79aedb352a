"""Durations as people write them into fields and back, and how long there is to go."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.web import times
from portal.web.times import duration, read_duration, until, write_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("7200s", 7200),
        (" 30 D ", 2_592_000),
        ("0h", 0),
        ("", None),
        ("  ", None),
    ],
)
def test_a_duration_is_read(text: str, seconds: int | None) -> None:
    assert read_duration(text) == seconds


def test_a_bare_number_is_refused_because_nobody_knows_its_unit() -> None:
    with pytest.raises(ValueError, match="Add the unit, such as 30h for hours or 30d for days"):
        read_duration("30")


@pytest.mark.parametrize("text", ["never", "-1h", "1.5h", "h", "1h30m", "٣h", "9999999999d", "30 days", "1y"])
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90m, 12h, 30d or 2w"):
        read_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(2_592_000, "30d"), (43_200, "12h"), (5400, "90m"), (7201, "7201s"), (1_209_600, "14d")]
)
def test_a_duration_is_written_in_the_largest_unit_that_fits(seconds: int, text: str) -> None:
    assert write_duration(seconds) == text


@given(st.integers(1, 10**9 - 1))
def test_what_is_written_reads_as_the_same(seconds: int) -> None:
    assert read_duration(write_duration(seconds)) == seconds


def test_a_duration_in_words_leaves_out_what_is_nothing() -> None:
    assert duration(90_060) == "1 day 1 hour 1 minute"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "in 1 minute"),
        (20, "in 1 minute"),
        (89, "in 1 minute"),
        (91, "in 2 minutes"),
        (3569, "in 59 minutes"),
        (3599, "in 1 hour"),
        (3600, "in 1 hour"),
        (7199, "in 2 hours"),
        (84_599, "in 23 hours"),
        (86_399, "in 1 day"),
        (30 * 86_400 - 1, "in 30 days"),
        (59 * 86_400 + 50_000, "in 60 days"),
        (365 * 86_400 - 1, "in 365 days"),
    ],
)
def test_a_time_to_come_is_told_to_the_nearest(monkeypatch: pytest.MonkeyPatch, seconds: int, words: str) -> None:
    moment = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    monkeypatch.setattr(times, "now", lambda: moment)
    assert f">{words}</time>" in until(moment + timedelta(seconds=seconds))
