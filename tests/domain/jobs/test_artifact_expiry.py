"""How long artifacts stay, in GitLab's words."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.errors import BadRequest
from portal.domain.jobs import artifact_expiry

USUAL = timedelta(days=30)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("42", timedelta(seconds=42)),
        ("42 seconds", timedelta(seconds=42)),
        ("3 mins 4 sec", timedelta(minutes=3, seconds=4)),
        ("2 hrs 20 min", timedelta(hours=2, minutes=20)),
        ("2h20min", timedelta(hours=2, minutes=20)),
        ("1 week", timedelta(weeks=1)),
        ("3 weeks and 2 days", timedelta(weeks=3, days=2)),
        ("1 day, 2 hours", timedelta(days=1, hours=2)),
        ("30 days", timedelta(days=30)),
        ("1 Week ", timedelta(weeks=1)),
        ("6 mos 1 day", timedelta(days=181)),
        ("1.5 hours", timedelta(minutes=90)),
        ("1 yr", timedelta(days=365.25)),
        ("", USUAL),
        ("never", None),
        ("0", None),
        ("999999999 years", timedelta(days=36_500)),
    ],
)
def test_the_words_of_gitlab_are_understood(text: str, stays: timedelta | None) -> None:
    assert artifact_expiry.read(text, USUAL) == stays


@pytest.mark.parametrize("text", ["soon", "1 fortnight", "-1 day", "week", "1 week ago", "1e9 days", "٣ days", "and"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadRequest, match="1 week"):
        artifact_expiry.read(text, USUAL)


@given(st.text(max_size=80))
def test_any_other_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = artifact_expiry.read(text, USUAL)
    except BadRequest:
        return
    assert found is None or timedelta(0) < found <= timedelta(days=36_500)
