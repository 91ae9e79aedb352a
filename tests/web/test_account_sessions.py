"""A person's own sessions: seeing them, ending them; and the front page of the account."""

import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import AuditEvent, UserSession
from tests.cast import PASSWORD, Cast, csrf_of, sign_in
from tests.web.reading import fill, links, read, words

PAGE = "/-/account/sessions"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture
def here(client: FlaskClient, cast: Cast) -> FlaskClient:
    """Alice in the browser of the test."""
    return sign_in(client, "alice")


def elsewhere(client: FlaskClient, who: str = "alice", address: str = "203.0.113.9") -> FlaskClient:
    other = client.application.test_client()
    other.environ_base.update(REMOTE_ADDR=address, HTTP_USER_AGENT=FIREFOX)
    return sign_in(other, who)


def numbers(session: Session, name: str) -> list[int]:
    query = select(UserSession.id).where(UserSession.user.has(username=name)).order_by(UserSession.id)
    return list(session.scalars(query))


def rows(page: str) -> list[str]:
    return [words(row) for row in re.findall(r"<tr>\s*<td.*?</tr>", page, re.DOTALL)]


def is_in(client: FlaskClient) -> bool:
    return client.get("/").status_code == 200


def test_a_person_sees_where_they_are_signed_in_and_how(here: FlaskClient) -> None:
    elsewhere(here)
    elsewhere(here, "bob", "192.0.2.50")
    mine, other = rows(read(here, PAGE))
    assert "this one" in mine
    assert "127.0.0.1" in mine
    assert "End" not in mine
    assert "Firefox 128 on Linux Password From 203.0.113.9 Signed in just now Last used just now End" in other
    assert "192.0.2.50" not in read(here, PAGE)


def test_the_way_they_signed_in_is_told(here: FlaskClient, session: Session) -> None:
    found = session.scalars(select(UserSession)).one()
    found.method, found.second_factor = "openid", True
    session.commit()
    assert "Single sign-on and second factor" in rows(read(here, PAGE))[0]


def test_what_a_browser_says_of_itself_is_only_text(here: FlaskClient) -> None:
    other = here.application.test_client()
    other.environ_base["HTTP_USER_AGENT"] = '"><script>alert(1)</script>'
    sign_in(other, "alice")
    assert "<script>alert" not in read(here, PAGE)


def test_a_person_ends_one_of_them_and_that_browser_is_out_at_once(here: FlaskClient, session: Session) -> None:
    other, third = elsewhere(here), elsewhere(here)
    fill(here, f"{PAGE}/{numbers(session, 'alice')[1]}/end", form_at=PAGE, expect=303)
    assert "The session has ended." in words(read(here, PAGE))
    assert [is_in(each) for each in (here, other, third)] == [True, False, True]


@pytest.mark.parametrize("all_others", [False, True])
def test_ending_asks_again_who_one_is_when_the_sign_in_is_old(
    here: FlaskClient, session: Session, all_others: bool
) -> None:
    other = elsewhere(here)
    address = f"{PAGE}/end-others" if all_others else f"{PAGE}/{numbers(session, 'alice')[1]}/end"
    session.execute(update(UserSession).values(confirmed_at=now() - timedelta(minutes=26)))
    session.commit()
    csrf = csrf_of(read(here, PAGE))
    answer = here.post(address, data={"csrf_token": csrf}, headers={"Referer": f"https://portal.example.com{PAGE}"})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/-/confirm?next={PAGE}")
    assert is_in(other)
    fill(here, answer.headers["Location"], password=PASSWORD, expect=303)
    fill(here, address, form_at=PAGE, expect=303)
    assert not is_in(other)


def test_all_others_end_at_once_and_this_one_stays(here: FlaskClient, session: Session) -> None:
    others = [elsewhere(here) for _ in range(3)]
    bob = elsewhere(here, "bob")
    fill(here, f"{PAGE}/end-others", form_at=PAGE, expect=303)
    assert not any(is_in(each) for each in others)
    page = words(read(here, PAGE))
    assert "3 other sessions have ended." in page
    assert "You are signed in nowhere else." in page
    assert is_in(bob)


def test_nobody_ends_somebody_elses(here: FlaskClient, session: Session) -> None:
    bob = elsewhere(here, "bob")
    [number] = numbers(session, "bob")
    for wrong in (number, number + 1000):
        fill(here, f"{PAGE}/{wrong}/end", form_at=PAGE, expect=404)
    assert is_in(bob)


def test_an_administrator_has_no_other_way_here(cast: Cast, client: FlaskClient, session: Session) -> None:
    bob = elsewhere(client, "bob")
    fill(sign_in(client, "dana"), f"{PAGE}/{numbers(session, 'bob')[0]}/end", form_at=PAGE, expect=404)
    assert is_in(bob)


def test_the_session_one_is_in_ends_by_signing_out(here: FlaskClient, session: Session) -> None:
    answer = fill(here, f"{PAGE}/{numbers(session, 'alice')[0]}/end", form_at=PAGE, expect=403)
    assert "Sign out to end it." in words(answer.get_data(as_text=True))
    assert is_in(here)


@pytest.mark.parametrize("address", [f"{PAGE}/1/end", f"{PAGE}/end-others"])
def test_nothing_ends_by_a_link_or_a_forged_form(here: FlaskClient, session: Session, address: str) -> None:
    other = elsewhere(here)
    assert here.get(address).status_code in (404, 405)
    assert here.post(address).status_code == 400
    assert here.post(address, data={"csrf_token": csrf_of(read(other, PAGE))}).status_code == 400
    assert is_in(other)


def test_the_trail_tells_of_it(here: FlaskClient, session: Session) -> None:
    elsewhere(here), elsewhere(here), elsewhere(here)
    fill(here, f"{PAGE}/{numbers(session, 'alice')[1]}/end", form_at=PAGE, expect=303)
    fill(here, f"{PAGE}/end-others", form_at=PAGE, expect=303)
    one, all_ = session.scalars(
        select(AuditEvent).where(AuditEvent.action.contains("session")).order_by(AuditEvent.id)
    )
    assert (one.action, one.actor_name, one.target_name) == ("session_ended", "Alice Lam", "Alice Lam")
    assert (all_.action, all_.changes) == ("other_sessions_ended", {"sessions": [2, 0]})


@pytest.mark.parametrize("page", ["/-/account", PAGE])
def test_a_visitor_is_asked_to_sign_in(client: FlaskClient, cast: Cast, page: str) -> None:
    assert client.get(page).headers["Location"].startswith("/-/sign-in")


def test_the_account_page_leads_to_all_that_is_ones_own(here: FlaskClient) -> None:
    page = read(here, "/-/account")
    assert {"/-/account/password", PAGE} <= set(links(page))
    assert "1 browser is signed in as you." in words(page)
    assert "alice@acme.example" in page
    assert "/-/account" in links(read(here, "/"))
