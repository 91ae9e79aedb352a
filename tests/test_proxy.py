"""Behind proxies: whose address counts, and that nobody can write it themselves."""

import http.client
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from portal import create_app
from portal.database import db
from portal.models import AuditEvent, RunnerManager, SignInAttempt, UserSession
from portal.requests import address_behind
from tests import databases
from tests.api.people import Person
from tests.cast import Cast
from tests.portals import RunningPortal

PEER, CLIENT, FORGED = "10.0.0.1", "203.0.113.7", "198.51.100.66"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "", PEER),
        (0, FORGED, PEER),
        (1, CLIENT, CLIENT),
        (1, f"{FORGED}, {CLIENT}", CLIENT),
        (1, f"{FORGED},{FORGED} , {CLIENT}", CLIENT),
        (2, f"{FORGED}, {CLIENT}, 10.0.0.2", CLIENT),
        (2, f"{CLIENT}, 10.0.0.2", CLIENT),
        (3, f"{FORGED}, {CLIENT}, 10.0.0.3, 10.0.0.2", CLIENT),
    ],
)
def test_the_address_is_the_one_that_the_outermost_trusted_proxy_has_seen(
    proxies: int, forwarded: str, address: str
) -> None:
    assert address_behind(proxies, PEER, forwarded) == address


@pytest.mark.parametrize("forwarded", ["", CLIENT, ",", f" , {CLIENT}"])
def test_a_header_that_is_shorter_than_the_way_is_not_believed(forwarded: str) -> None:
    assert address_behind(2, PEER, forwarded) == PEER


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "_hidden",
        "localhost",
        "203.0.113",
        "203.0.113.7.9",
        "203.0.113.7:port",
        "[203.0.113.7",
        "<b>",
        "1;2",
        "203.0.113.7 or 1=1",
        "[]",
        "٣.٣.٣.٣",
        "9" * 10_000,
    ],
)
def test_what_is_no_address_is_not_believed(garbage: str) -> None:
    assert address_behind(1, PEER, garbage) == PEER
    assert address_behind(1, PEER, f"{FORGED}, {garbage}") == PEER


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_an_address_is_read_in_every_form_that_proxies_write(written: str, address: str) -> None:
    assert address_behind(1, PEER, written) == address


@pytest.mark.parametrize(
    ("peer", "address"), [("", ""), ("::ffff:10.0.0.1", "10.0.0.1"), ("/run/socket", "/run/socket")]
)
def test_without_a_proxy_the_peer_is_the_client(peer: str, address: str) -> None:
    assert address_behind(0, peer, "") == address


@pytest.fixture(scope="module")
def behind(postgres: databases.Server) -> Iterator[RunningPortal]:
    """A portal that trusts one proxy; the test plays it."""
    with postgres.copy() as url, RunningPortal(url, PORTAL_TRUSTED_PROXIES="1") as portal:
        yield portal


def sign_in(portal: RunningPortal, forwarded: list[str], password: str) -> int:
    """Sign in as root through a connection that writes these X-Forwarded-For lines. Returns the status."""
    person = Person(portal.url)
    body = person.filled_in("/-/sign-in", login="root", password=password)
    with closing(http.client.HTTPConnection("127.0.0.1", portal.port, timeout=60)) as connection:
        connection.putrequest("POST", "/-/sign-in")
        for line in forwarded:
            connection.putheader("X-Forwarded-For", line)
        connection.putheader("Cookie", "; ".join(f"{each.name}={each.value}" for each in person.cookies))
        connection.putheader("Content-Type", "application/x-www-form-urlencoded")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status


def stored(portal: RunningPortal, column: object) -> object:
    """The newest value of a column in the portal's database."""
    engine = create_engine(portal.environment["DATABASE_URL"])
    try:
        with Session(engine) as session:
            query = select(column).order_by(column.class_.id.desc()).limit(1)  # type: ignore[attr-defined]
            return session.scalar(query)
    finally:
        engine.dispose()


@pytest.mark.parametrize("forwarded", [[CLIENT], [f"{FORGED}, {CLIENT}"], [FORGED, CLIENT], [FORGED, FORGED, CLIENT]])
def test_sessions_and_the_trail_have_the_clients_address_however_the_proxy_writes_it(
    behind: RunningPortal, forwarded: list[str]
) -> None:
    assert sign_in(behind, forwarded, "correct horse battery") == 302
    assert stored(behind, UserSession.address) == CLIENT
    assert stored(behind, AuditEvent.address) == CLIENT


def test_the_throttle_counts_by_it_so_that_nobody_gets_round_by_writing_another(behind: RunningPortal) -> None:
    answers = [sign_in(behind, [f"203.0.113.{number}, 192.0.2.99"], "not the right one") for number in range(6)]
    assert answers == [422] * 5 + [429]
    assert stored(behind, SignInAttempt.network) == "noted"
    assert sign_in(behind, ["192.0.2.98"], "not the right one") == 422
    assert stored(behind, SignInAttempt.network) == "192.0.2.98"


def test_machines_have_it_too(own_database: str) -> None:
    app = create_app(databases.settings(own_database, PORTAL_TRUSTED_PROXIES="1"))
    with app.app_context():
        token = Cast(db.session()).runner().token
        app.test_client().post(
            "/api/v4/runners/verify",
            json={"token": token, "system_id": "s_1"},
            headers={"X-Forwarded-For": f"{FORGED}, {CLIENT}"},
        )
        app.extensions["heartbeats"].take()
        assert db.session.scalar(select(RunnerManager.ip_address)) == CLIENT
        db.session.remove()
        db.engine.dispose()


def test_without_the_setting_the_header_is_ignored(running_portal: RunningPortal) -> None:
    assert sign_in(running_portal, [FORGED], "correct horse battery") == 302
    assert stored(running_portal, UserSession.address) == "127.0.0.1"
