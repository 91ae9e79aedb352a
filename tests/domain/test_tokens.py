"""How tokens look, and what is refused without asking the database."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain import tokens


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_token_has_the_form_that_clients_and_secret_scanners_know(kind: int) -> None:
    token = tokens.make(kind)
    assert re.fullmatch(rf"glrt-t{kind}_[0-9A-Za-z]{{27}}\.0r[0-9a-z]{{7}}", token)


def test_a_fresh_token_is_not_mistyped() -> None:
    assert not tokens.is_mistyped(tokens.make(2))


@given(position=st.integers(0, 44), letter=st.sampled_from(string.ascii_letters + string.digits))
def test_a_token_with_one_wrong_letter_in_its_random_part_or_checksum_is_mistyped(position: int, letter: str) -> None:
    token = tokens.make(2)
    if position < 8 or position >= len(token) or token[position] in (letter, "."):
        return
    wrong = token[:position] + letter + token[position + 1 :]
    assert tokens.is_mistyped(wrong) or not tokens._OURS.fullmatch(wrong)


def test_tokens_of_other_forms_are_never_called_mistyped() -> None:
    assert not tokens.is_mistyped("glrt-abcdefghijklmnopqrst")
    assert not tokens.is_mistyped("0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize(
    ("token", "short"),
    [
        ("glrt-t2_Xq7Lm2PdT8sVb31KdQeRaYw0Pz4.0r1k9x2fa", "Xq7Lm2PdT"),
        ("glrt-Xq7Lm2PdT8sVb31KdQeR", "Xq7Lm2PdT"),
        ("t1_Xq7Lm2PdT8sVb31KdQeR", "Xq7Lm2PdT"),
        ("glrtr-Xq7Lm2PdT8sVb31KdQeR", "Xq7Lm2PdT"),
        ("0123456789abcdef", "012345678"),
        ("GR1348941Xq7Lm2PdT8sVb31KdQe", "Xq7Lm2PdT"),
    ],
)
def test_the_short_form_is_what_gitlab_runner_prints(token: str, short: str) -> None:
    assert tokens.shorten(token) == short


def test_a_thousand_tokens_differ_in_their_first_nine_characters() -> None:
    assert len({tokens.shorten(tokens.make(1)) for _ in range(1000)}) == 1000
