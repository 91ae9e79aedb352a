"""The vault: what is put in comes out again with the right key only, and keys can be replaced."""

import pytest

from portal.domain.vault import SECOND_FACTORS, Vault

OLD, NEW = "an old key that is long enough to be one", "a new key that is long enough to be one"


def test_what_is_put_in_comes_out_again_and_cannot_be_read_meanwhile() -> None:
    closed = Vault([OLD]).close("GR1348941secret")
    assert b"secret" not in closed
    assert Vault([OLD]).open(closed) == "GR1348941secret"


def test_the_same_text_is_never_encrypted_the_same_way_twice() -> None:
    vault = Vault([OLD])
    assert vault.close("GR1348941secret") != vault.close("GR1348941secret")


def test_another_key_opens_nothing() -> None:
    assert Vault([NEW]).open(Vault([OLD]).close("GR1348941secret")) is None


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_changed_text_is_not_opened(place: int) -> None:
    closed = bytearray(Vault([OLD]).close("GR1348941secret"))
    closed[place] ^= 1
    assert Vault([OLD]).open(bytes(closed)) is None


def test_a_key_is_replaced_without_a_gap() -> None:
    closed = Vault([OLD]).close("GR1348941secret")
    both = Vault([NEW, OLD])
    assert both.open(closed) == "GR1348941secret"
    renewed = both.renew(closed)
    assert renewed is not None
    assert Vault([NEW]).open(renewed) == "GR1348941secret"
    assert Vault([OLD]).open(renewed) is None


def test_what_no_key_opens_is_not_renewed() -> None:
    assert Vault([NEW]).renew(Vault([OLD]).close("GR1348941secret")) is None


def test_what_was_closed_for_one_purpose_is_opened_for_no_other() -> None:
    assert Vault([OLD], SECOND_FACTORS).open(Vault([OLD]).close("GR1348941secret")) is None


def test_a_registration_token_that_an_older_release_encrypted_is_opened() -> None:
    closed = b"gAAAAABrCMIcdF_7FMeRmTTJDRUEQv90mwhRMg_b7HyYr5pef2Vf4tTtV6kxQAn9vLhYWRE0SgxeMBss3mv_9M69zo0RXoz5nw=="
    assert Vault([OLD]).open(closed) == "GR1348941secret"
