"""Asked again who one is before something sensitive; a form that was opened in time may come a little later.

Which forms ask stands in tests/house/test_sensitive_doors.py.
"""

import html
import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.models import AuditEvent, RegistrationToken, RunnerToken, User, UserIdentity, UserSession
from portal.web import guards
from tests.cast import PASSWORD, Cast, csrf_of, hidden, sign_in
from tests.domain.clock import let_pass
from tests.web.reading import copy_of, fill, links, read, words
from tests.web.test_second_factor import Owner

CONFIRM = "/-/confirm"
LONG_AGO = timedelta(minutes=16)  # PORTAL_RECENT_SIGN_IN is a quarter of an hour
TOO_LATE = LONG_AGO + guards.TO_FILL_IN


def signed_in_before(session: Session, time: timedelta) -> None:
    """As if everybody had signed in so long ago."""
    session.execute(update(UserSession).values(confirmed_at=now() - time))
    session.commit()


def test_the_page_where_an_import_begins_asks_before_anything_is_pasted(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    sign_in(client, "dana")
    signed_in_before(session, LONG_AGO)
    answer = client.get("/admin/import")
    assert (answer.status_code, answer.headers.get("Location")) == (303, f"{CONFIRM}?next=/admin/import")
    signed_in_before(session, timedelta(minutes=14))
    assert client.get("/admin/import").status_code == 200


def test_what_is_not_sensitive_asks_nothing(client: FlaskClient, cast: Cast, session: Session) -> None:
    sign_in(client, "dana")
    signed_in_before(session, timedelta(hours=3))
    for path in (
        "/",
        "/admin/people",
        "/groups/acme/-/runners/new",
        "/-/account/second-factor",
        "/-/account/password",
    ):
        assert client.get(path).status_code == 200


def test_a_stranger_is_told_nothing_rather_than_asked(client: FlaskClient, cast: Cast, session: Session) -> None:
    sign_in(client, "charlie")
    signed_in_before(session, LONG_AGO)
    assert client.get("/groups/acme/-/registration/reset").status_code == 404
    assert client.get("/admin/people/new").status_code == 404


def test_the_password_leads_on_and_counts_for_the_next_pages(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    sign_in(client, "alice")
    signed_in_before(session, LONG_AGO)
    wanted = "/groups/acme/-/registration/reset"
    answer = fill(client, client.get(wanted).headers["Location"], password=PASSWORD, expect=303)
    assert answer.headers["Location"] == wanted
    assert client.get(wanted).status_code == 200
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "sign_in_confirmed")).one()
    assert event.actor_id == cast.alice.id


def test_a_session_has_a_new_key_afterwards_and_a_copy_of_the_old_cookie_is_worth_nothing(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    sign_in(client, "alice")
    copied = copy_of(client)
    assert copied.get("/").status_code == 200
    fill(client, CONFIRM, password="not hers at all", expect=422)
    assert copied.get("/").status_code == 200
    fill(client, CONFIRM, password=PASSWORD, expect=303)
    assert copied.get("/").status_code == 302
    assert client.get("/").status_code == 200
    assert session.scalar(select(func.count()).select_from(UserSession)) == 1


def test_a_wrong_password_is_refused_leaves_an_event_and_confirms_nothing(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    sign_in(client, "alice")
    signed_in_before(session, LONG_AGO)
    page = fill(client, CONFIRM, password="not hers at all", expect=422).get_data(as_text=True)
    assert "The password is wrong." in words(page)
    assert "not hers at all" not in page
    assert client.get("/groups/acme/-/registration/reset").status_code == 303
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "confirmation_refused")).one()
    assert (event.actor_id, event.changes) == (cast.alice.id, {"reason": [None, "wrong password"]})


def test_guessing_here_is_throttled_as_at_the_sign_in(client: FlaskClient, cast: Cast, session: Session) -> None:
    sign_in(client, "alice")
    for _ in range(5):
        fill(client, CONFIRM, password="not hers at all", expect=422)
    answer = fill(client, CONFIRM, password=PASSWORD, expect=429)
    assert int(answer.headers["Retry-After"]) > 0


def test_who_has_a_second_factor_gives_both(client: FlaskClient, cast: Cast, session: Session) -> None:
    alice = Owner(client, "alice")
    signed_in_before(session, LONG_AGO)
    fill(client, CONFIRM, password=PASSWORD, expect=422)
    fill(client, CONFIRM, password=PASSWORD, code=alice.wrong(), expect=422)
    fill(client, CONFIRM, password="not hers at all", code=alice.code(), expect=422)
    assert client.get("/-/account/second-factor/turn-off").status_code == 303
    fill(client, CONFIRM, password=PASSWORD, code=alice.code(), expect=303)
    assert client.get("/-/account/second-factor/turn-off").status_code == 200
    refused = session.scalars(select(AuditEvent).where(AuditEvent.action == "second_factor_refused")).all()
    assert [event.actor_id for event in refused] == [cast.alice.id]


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "/%09/evil.example", "x", ""],
)
def test_it_leads_to_no_other_place(client: FlaskClient, cast: Cast, elsewhere: str) -> None:
    sign_in(client, "alice")
    answer = fill(client, f"{CONFIRM}?next={elsewhere}", password=PASSWORD, expect=303)
    assert answer.headers["Location"] == "/"


class TestFormsThatComeLate:
    PATH = "/groups/acme/-/registration/reset"

    @pytest.fixture
    def alice(self, client: FlaskClient, cast: Cast, session: Session) -> FlaskClient:
        sign_in(client, "alice")
        fill(client, "/groups/acme/-/registration/token", form_at="/groups/acme/-/registration", expect=303)
        return client

    @staticmethod
    def tokens(session: Session) -> int:
        session.expire_all()
        return len(session.scalars(select(RegistrationToken)).all())

    def test_ten_minutes_more_are_there_to_fill_them_in(self, alice: FlaskClient, session: Session) -> None:
        csrf = csrf_of(read(alice, self.PATH))
        signed_in_before(session, TOO_LATE - timedelta(minutes=2))
        alice.post(self.PATH, data={"csrf_token": csrf})
        assert self.tokens(session) == 2

    def test_after_that_nothing_changes_and_the_form_is_where_it_leads_back_to(
        self, alice: FlaskClient, session: Session
    ) -> None:
        csrf = csrf_of(read(alice, self.PATH))
        signed_in_before(session, TOO_LATE)
        answer = alice.post(self.PATH, data={"csrf_token": csrf})
        assert answer.headers["Location"] == f"{CONFIRM}?next={self.PATH}"
        assert self.tokens(session) == 1
        assert "Nothing was changed yet" in words(read(alice, answer.headers["Location"]))

    @pytest.mark.parametrize(
        ("came_from", "leads_to"),
        [
            ("https://portal.example.com/groups/acme/-/registration", "/groups/acme/-/registration"),
            ("https://evil.example/groups/acme/-/registration", "/"),
            ("https://portal.example.com//evil.example/", "/"),
            ("http://localhost/acme/web/-/registration?a=b", "/acme/web/-/registration?a%3Db"),
            ("", "/"),
        ],
    )
    def test_a_button_without_a_page_of_its_own_leads_back_to_where_it_stood(
        self, alice: FlaskClient, session: Session, came_from: str, leads_to: str
    ) -> None:
        csrf = csrf_of(read(alice, self.PATH))
        signed_in_before(session, TOO_LATE)
        answer = alice.post(
            "/groups/acme/-/registration/turn-on",
            data={"csrf_token": csrf},
            headers={"Referer": came_from},
        )
        assert answer.headers["Location"] == f"{CONFIRM}?next={leads_to}"


class TestWhatALostFormLoses:
    """The way back leads to the page of the form, with what its address said."""

    def test_the_list_of_stale_runners_is_made_again_with_the_same_values(
        self, client: FlaskClient, cast: Cast, session: Session
    ) -> None:
        cast.runner(cast.acme)
        let_pass(session, timedelta(days=100))
        session.commit()
        sign_in(client, "alice")
        form = read(client, "/groups/acme/-/cleanup/delete-now?days=90")
        [page] = re.findall(r'<form class="card form" method="post" action="([^"]+)"', form)
        page = html.unescape(page)
        signed_in_before(session, TOO_LATE)
        answer = client.post(
            page, data={"csrf_token": csrf_of(form), "days": "90", "seen_at": hidden(form, "seen_at")}
        )
        assert answer.headers["Location"].startswith(f"{CONFIRM}?next=/groups/acme/-/cleanup/delete-now?days%3D90")
        back = fill(client, answer.headers["Location"], password=PASSWORD, expect=303)
        assert back.headers["Location"] == page
        assert "Delete 1 stale runner now?" in words(read(client, page))

    def test_a_new_member_is_typed_again_on_the_page_of_the_members(
        self, client: FlaskClient, cast: Cast, session: Session
    ) -> None:
        sign_in(client, "alice")
        members = "/groups/acme/-/members"
        csrf = csrf_of(read(client, members))
        signed_in_before(session, TOO_LATE)
        answer = client.post(
            members,
            data={"csrf_token": csrf, "login": "charlie", "role": "developer"},
            headers={"Referer": f"https://portal.example.com{members}"},
        )
        assert answer.headers["Location"] == f"{CONFIRM}?next={members}"
        back = fill(client, answer.headers["Location"], password=PASSWORD, expect=303)
        assert back.headers["Location"] == members
        assert cast.charlie.name not in words(read(client, members))


class TestWithoutAPassword:
    @pytest.fixture
    def alice(self, client: FlaskClient, cast: Cast, session: Session) -> FlaskClient:
        sign_in(client, "alice")
        session.execute(update(User).where(User.id == cast.alice.id).values(password_digest=None))
        session.commit()
        return client

    def test_without_any_provider_a_fresh_sign_in_is_the_way(self, alice: FlaskClient) -> None:
        page = read(alice, CONFIRM)
        assert "Sign out and in again" in words(page)
        assert 'type="password"' not in page

    def test_nothing_that_is_sent_confirms(self, alice: FlaskClient, session: Session) -> None:
        signed_in_before(session, LONG_AGO)
        fill(alice, CONFIRM, password="", expect=404)
        fill(alice, CONFIRM, password=PASSWORD, expect=404)
        assert alice.get("/groups/acme/-/registration/reset").status_code == 303

    def test_with_an_account_at_the_provider_that_is_offered(
        self, alice: FlaskClient, cast: Cast, session: Session, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class There:
            name = "Acme sign-on"

        monkeypatch.setitem(app.extensions, "openid", There())
        session.add(UserIdentity(user_id=cast.alice.id, issuer="https://sso.example.com", subject="1"))
        session.commit()
        page = read(alice, f"{CONFIRM}?next=/groups/acme")
        assert "Confirm at Acme sign-on" in words(page)
        assert 'action="/-/sign-in/openid/confirm?next=/groups/acme"' in page


def test_ending_a_token_that_comes_too_late_ends_nothing(client: FlaskClient, cast: Cast, session: Session) -> None:
    issued = cast.runner(cast.acme)
    path = f"/groups/acme/-/runners/{issued.runner.id}/reset-token"
    sign_in(client, "alice")
    csrf = csrf_of(read(client, path))
    signed_in_before(session, TOO_LATE)
    assert client.post(path, data={"csrf_token": csrf}).status_code == 303
    session.expire_all()
    assert session.scalars(select(RunnerToken.expires_at)).all() == [None]
    assert "/" in links(read(client, CONFIRM))
