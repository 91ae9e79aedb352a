"""A person who is blocked or deleted is out at once in every process of the portal, not only where it was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.models import User
from tests.api.processes import Process
from tests.cast import Cast, sign_in
from tests.web.reading import fill

Clients = dict[str, list[FlaskClient]]


@pytest.fixture
def clients(process: Process, own_database: str) -> Iterator[Clients]:
    """Bob and Dana, each with one session that both processes of the portal know."""
    with process.session() as session:
        Cast(session)
    other = Process(own_database)
    found: Clients = {}
    for who in ("bob", "dana"):
        here, there = process.app.test_client(), other.app.test_client()
        sign_in(here, who)
        cookies = [cookie for cookie in here._cookies.values() if cookie.value]
        for cookie in cookies:
            there.set_cookie(
                cookie.key,
                cookie.decoded_value,
                domain=cookie.domain,
                path=cookie.path,
                secure=cookie.secure,
            )
        found[who] = [here, there]
        assert [each.get("/").status_code for each in found[who]] == [200, 200]
    yield found
    other.close()


def number(process: Process, username: str) -> int:
    with process.session() as session:
        return session.scalars(select(User.id).where(User.username == username)).one()


@pytest.mark.parametrize("act", ["block", "end-sessions", "delete"])
def test_who_was_signed_in_is_out_in_both_processes(process: Process, clients: Clients, act: str) -> None:
    place: Callable[[str], str] = f"/admin/people/{number(process, 'bob')}/{{}}".format
    fill(clients["dana"][1], place(act), typed="bob")
    for bob in clients["bob"]:
        assert bob.get("/").headers["Location"].startswith("/-/sign-in")
    assert [each.get("/").status_code for each in clients["dana"]] == [200, 200]


def test_an_administrator_no_more_is_refused_in_both_processes(process: Process, clients: Clients) -> None:
    place = f"/admin/people/{number(process, 'bob')}/administrator"
    fill(clients["dana"][1], place, wanted="yes")
    assert [each.get("/admin/people").status_code for each in clients["bob"]] == [200, 200]
    fill(clients["dana"][0], place, wanted="no")
    assert [each.get("/admin/people").status_code for each in clients["bob"]] == [404, 404]
