"""The throttle of sign-ins: who waits, for how long, and who never does because of somebody else."""

import hashlib
from datetime import timedelta

import pytest
from itsdangerous import TimestampSigner
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors
from portal.domain.errors import TryLater
from portal.domain.people import sign_in_throttle
from portal.domain.people.sign_in_throttle import (
    KNOWN_FOR,
    PER_ACCOUNT,
    PER_NETWORK,
    PER_PLACE,
    WINDOW,
    Throttle,
    network_of,
)
from portal.models import AuditEvent, KnownNetwork, SignInAttempt
from tests.cast import Cast
from tests.domain.clock import let_pass
from tests.domain.queries import asked

THROTTLE = Throttle("a key for tests only, of no use to anybody else")
HERE, HOME, ELSEWHERE = "198.51.100.7", "192.0.2.1", "203.0.113.9"
SECOND = timedelta(seconds=1)


def begin(session: Session, login: str = "alice", address: str = HERE, mark: str = "") -> SignInAttempt:
    return THROTTLE.begin(session, actors.visitor(address=address, request_id="try"), login, mark)


def passes(session: Session, login: str = "alice", address: str = HERE, mark: str = "") -> bool:
    """Whether one more attempt is let through; it counts like any other."""
    try:
        begin(session, login, address, mark)
    except TryLater:
        return False
    return True


def fail(session: Session, times: int = PER_PLACE, login: str = "alice", address: str = HERE, mark: str = "") -> None:
    for _ in range(times):
        begin(session, login, address, mark)


def attack(session: Session, login: str = "alice", times: int = PER_ACCOUNT) -> None:
    """Somebody with many addresses tries one name."""
    for number in range(times):
        begin(session, login, f"203.0.113.{number}")


def refusals(session: Session) -> list[AuditEvent]:
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == "sign_in_refused")))


@pytest.mark.parametrize("login", ["alice", "alice@acme.example", "nobody", "nobody@acme.example", "", "pä" * 3000])
def test_after_five_failures_from_one_network_the_next_waits(session: Session, cast: Cast, login: str) -> None:
    fail(session, login=login)
    with pytest.raises(TryLater, match=r"^Too many attempts to sign in\. Wait 15 minutes and try again\.$") as later:
        begin(session, login)
    assert WINDOW.total_seconds() - 5 <= later.value.seconds <= WINDOW.total_seconds()


def test_a_name_is_the_same_whatever_its_case_and_the_spaces_around_it(session: Session, cast: Cast) -> None:
    fail(session)
    assert not passes(session, " ALICE ")


def test_an_account_and_no_account_cost_the_same_statements(session: Session, cast: Cast) -> None:
    def statements(login: str) -> list[list[str]]:
        found = []
        for _ in range(PER_PLACE + 2):
            with asked(session) as sent:
                passes(session, login)
                session.flush()
            found.append([each.split(" VALUES")[0] for each in sent])
        return found

    statements("erin")  # so that nothing is compiled for the first time below
    assert statements("alice") == statements("nobody")


def test_the_two_names_of_one_account_are_counted_apart_so_that_nothing_tells_they_are_one(
    session: Session, cast: Cast
) -> None:
    fail(session, login="alice")
    assert passes(session, "alice@acme.example")


def test_the_wait_ends_when_the_failure_that_filled_it_is_15_minutes_old(session: Session, cast: Cast) -> None:
    fail(session)
    let_pass(session, WINDOW - 10 * SECOND)
    with pytest.raises(TryLater, match="Wait a minute") as later:
        begin(session)
    assert 1 <= later.value.seconds <= 10
    let_pass(session, 10 * SECOND)
    assert passes(session)


def test_failures_that_are_refused_do_not_make_the_wait_longer(session: Session, cast: Cast) -> None:
    fail(session)
    let_pass(session, WINDOW / 2)
    assert not passes(session)
    let_pass(session, WINDOW / 2)
    assert passes(session)


@pytest.mark.parametrize("login", ["alice", "nobody"])
def test_a_name_tried_from_everywhere_is_refused_to_strangers(session: Session, cast: Cast, login: str) -> None:
    attack(session, login)
    assert not passes(session, login, "198.51.100.200")


def test_the_same_attack_does_not_lock_a_person_out_of_their_network(session: Session, cast: Cast) -> None:
    THROTTLE.succeeded(session, cast.alice, HOME, "")
    attack(session)
    assert passes(session, address=HOME)


def test_nor_off_their_device_wherever_they_take_it(session: Session, cast: Cast) -> None:
    mark = THROTTLE.succeeded(session, cast.alice, HOME, "")
    attack(session)
    assert passes(session, address=ELSEWHERE, mark=mark)
    assert not passes(session, address=ELSEWHERE)


def test_an_attacker_in_the_same_network_does_not_lock_a_known_device_out(session: Session, cast: Cast) -> None:
    mark = THROTTLE.succeeded(session, cast.alice, HOME, "")
    fail(session, address=HOME)
    assert not passes(session, address=HOME)
    assert passes(session, address=HOME, mark=mark)


def test_a_known_device_has_five_failures_too(session: Session, cast: Cast) -> None:
    mark = THROTTLE.succeeded(session, cast.alice, HOME, "")
    fail(session, mark=mark)
    assert not passes(session, mark=mark)
    assert not passes(session, address=ELSEWHERE, mark=mark)


def test_failures_of_people_in_their_own_networks_are_no_attack(session: Session, cast: Cast) -> None:
    for number in range(PER_ACCOUNT):
        THROTTLE.succeeded(session, cast.alice, f"192.0.2.{number}", "")
        begin(session, address=f"192.0.2.{number}")
    assert passes(session, address=ELSEWHERE)


def test_one_network_may_fail_fifty_times_over_all_names(session: Session, cast: Cast) -> None:
    for number in range(PER_NETWORK):
        begin(session, f"guess-{number}")
    assert not passes(session, "alice")
    assert not passes(session, "nobody")
    assert passes(session, "alice", ELSEWHERE)


def test_that_does_not_lock_a_known_device_in_it_out(session: Session, cast: Cast) -> None:
    mark = THROTTLE.succeeded(session, cast.alice, HERE, "")
    for number in range(PER_NETWORK):
        begin(session, f"guess-{number}")
    assert passes(session, mark=mark)


@pytest.mark.parametrize("whose", ["of another person", "changed", "of another portal", "too old", "no mark"])
def test_a_mark_that_is_not_theirs_helps_nobody(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    mark = THROTTLE.succeeded(session, cast.bob if whose == "of another person" else cast.alice, ELSEWHERE, "")
    if whose == "changed":
        mark = mark[:-2] + ("AA" if mark[-2:] != "AA" else "BB")
    elif whose == "of another portal":
        mark = Throttle("another key that is long enough to be one").succeeded(session, cast.alice, ELSEWHERE, "")
    elif whose == "too old":
        then = int((now() - KNOWN_FOR - 2 * SECOND).timestamp())
        with monkeypatch.context() as past:
            past.setattr(TimestampSigner, "get_timestamp", lambda _self: then)
            mark = THROTTLE.succeeded(session, cast.alice, ELSEWHERE, "")
    elif whose == "no mark":
        mark = "{}"
    fail(session)
    assert not passes(session, mark=mark)


def test_a_mark_knows_all_who_share_a_device_and_stays_the_same_device(session: Session, cast: Cast) -> None:
    alices = THROTTLE.succeeded(session, cast.alice, HOME, "")
    both = THROTTLE.succeeded(session, cast.bob, HOME, alices)
    fail(session, mark=alices)
    assert not passes(session, mark=both)
    assert passes(session, "bob", mark=both)


def test_a_device_remembers_the_last_five_people(session: Session, cast: Cast) -> None:
    mark = ""
    for number in range(sign_in_throttle.PEOPLE_PER_DEVICE + 1):
        mark = THROTTLE.succeeded(session, cast.person(f"visitor-{number}"), HOME, mark)
    fail(session, login="visitor-0")
    assert not passes(session, "visitor-0", mark=mark)
    fail(session, login="visitor-1")
    assert passes(session, "visitor-1", mark=mark)


def test_a_network_is_forgotten_90_days_after_the_last_sign_in(session: Session, cast: Cast) -> None:
    THROTTLE.succeeded(session, cast.alice, HOME, "")
    let_pass(session, KNOWN_FOR - 10 * SECOND)
    attack(session)
    assert passes(session, address=HOME)
    let_pass(session, 10 * SECOND)
    assert not passes(session, address=HOME)


def test_a_sign_in_keeps_the_network_known(session: Session, cast: Cast) -> None:
    for _ in range(2):
        THROTTLE.succeeded(session, cast.alice, HOME, "")
        let_pass(session, KNOWN_FOR - SECOND)
    attack(session)
    assert passes(session, address=HOME)
    assert session.scalar(select(func.count()).select_from(KnownNetwork)) == 1


def test_a_sign_in_forgets_the_failures_of_its_own_place_and_no_others(session: Session, cast: Cast) -> None:
    fail(session, PER_PLACE - 1)
    fail(session, PER_PLACE - 1, "alice@acme.example")
    fail(session, address=ELSEWHERE)
    fail(session, login="bob")
    THROTTLE.succeeded(session, cast.alice, HERE, "")
    fail(session)
    fail(session, login="alice@acme.example")
    assert not passes(session, address=ELSEWHERE)
    assert not passes(session, "bob")


def test_a_sign_in_on_a_known_device_does_not_give_the_network_more_attempts(session: Session, cast: Cast) -> None:
    mark = THROTTLE.succeeded(session, cast.alice, HOME, "")
    fail(session, address=HOME)
    fail(session, PER_PLACE - 1, address=HOME, mark=mark)
    mark = THROTTLE.succeeded(session, cast.alice, HOME, mark)
    fail(session, address=HOME, mark=mark)
    assert not passes(session, address=HOME)


def test_an_attempt_that_is_given_back_does_not_count(session: Session, cast: Cast) -> None:
    for _ in range(PER_PLACE + 1):
        THROTTLE.give_back(session, begin(session))
    fail(session)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "unknown"),
        ("a socket", "unknown"),
    ],
)
def test_an_address_counts_by_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_whole_ipv6_network_has_five_failures(session: Session, cast: Cast) -> None:
    for number in range(PER_PLACE):
        begin(session, address=f"2001:db8::{number:x}")
    assert not passes(session, address="2001:db8::ffff")
    assert passes(session, address="2001:db8:0:1::1")


@pytest.mark.parametrize(
    ("login", "target"), [("alice", ("person", "Alice Lam")), ("nobody", ("instance", "the instance"))]
)
def test_the_trail_tells_of_a_refusal_once_in_15_minutes(
    session: Session, cast: Cast, login: str, target: tuple[str, str]
) -> None:
    fail(session, login=login)
    for _ in range(20):
        assert not passes(session, login)
    [event] = refusals(session)
    assert (event.target_kind, event.target_name) == target
    assert (event.actor_kind, event.address, event.request_id) == ("visitor", HERE, "try")
    assert event.changes == {"reason": [None, "too many attempts"]}
    let_pass(session, WINDOW)
    fail(session, login=login)
    assert not passes(session, login)
    assert len(refusals(session)) == 2


def test_a_flood_of_names_from_one_network_is_told_once(session: Session, cast: Cast) -> None:
    for number in range(PER_NETWORK):
        begin(session, f"guess-{number}")
    for number in range(30):
        assert not passes(session, f"more-{number}")
    assert len(refusals(session)) == 1


def test_a_flood_of_networks_on_one_name_is_told_once(session: Session, cast: Cast) -> None:
    attack(session)
    for number in range(30):
        assert not passes(session, address=f"198.51.100.{number}")
    assert len(refusals(session)) == 1


def test_what_was_typed_is_kept_nowhere_not_even_as_a_hash_that_can_be_guessed(session: Session, cast: Cast) -> None:
    typed = "my password in the wrong field"
    fail(session, login=typed)
    assert not passes(session, typed)
    kept = set(session.scalars(select(SignInAttempt.account_digest)))
    assert hashlib.sha256(typed.encode()).digest() not in kept
    assert typed not in str([vars(each) for each in refusals(session)])


def test_what_counts_no_more_is_deleted_and_nothing_else(session: Session, cast: Cast) -> None:
    at = now()
    begin(session)
    THROTTLE.succeeded(session, cast.bob, HOME, "")
    assert sign_in_throttle.prune(session, at + WINDOW - SECOND) == 0
    assert sign_in_throttle.prune(session, at + WINDOW + SECOND) == 1
    assert sign_in_throttle.prune(session, at + KNOWN_FOR - SECOND) == 0
    assert sign_in_throttle.prune(session, at + KNOWN_FOR + SECOND) == 1


def test_a_deleted_person_leaves_no_networks(session: Session, cast: Cast) -> None:
    THROTTLE.succeeded(session, cast.charlie, HOME, "")
    session.delete(cast.charlie)
    session.flush()
    assert session.scalar(select(func.count()).select_from(KnownNetwork)) == 0
