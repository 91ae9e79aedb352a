"""The second factor on the pages: set up, asked for at the sign-in, demanded by the portal; the key is shown once."""

import html
import re
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.people.second_factor import Configured, Demand
from portal.domain.vault import Vault
from portal.models import AuditEvent, SecondFactor, User, UserSession
from portal.web import pending_sign_ins
from tests.cast import PASSWORD, Cast, csrf_of, hidden, send, sign_in
from tests.web.reading import copy_of, fill, links, read, words

HOME, SET_UP = "/-/account/second-factor", "/-/account/second-factor/set-up"
TURN_ON, CODES = f"{HOME}/turn-on", f"{HOME}/recovery-codes"
SIGN_IN, CODE = "/-/sign-in", "/-/sign-in/code"
RECOVERY = re.compile(r"<code>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){5})</code>")


def key_of(page: str) -> str:
    found = re.search(r'<code id="key">([A-Z2-7 ]+)</code>', page)
    assert found, "the page shows no key"
    return found[1].replace(" ", "")


class Owner:
    """A signed-in person with an authenticator app. Codes are of a step each, from the last one on."""

    def __init__(self, client: FlaskClient, username: str) -> None:
        self.client, self.username = sign_in(client, username), username
        page = send(client, SET_UP, form_at=HOME, expect=200).get_data(as_text=True)
        self.app, self.sealed, self.steps = pyotp.TOTP(key_of(page)), hidden(page, "sealed"), -1
        answer = send(client, TURN_ON, form_at=HOME, expect=200, sealed=self.sealed, code=self.code())
        self.recovery = RECOVERY.findall(answer.get_data(as_text=True))

    def code(self) -> str:
        """A code that is good and was not typed before; there are three at a time."""
        self.steps += 1
        return self.app.at(now(), counter_offset=self.steps - 1)

    def wrong(self) -> str:
        good = {self.app.at(now(), counter_offset=steps) for steps in range(-3, 4)}
        return next(code for code in ("000000", "111111", "222222", "333333", "444444") if code not in good)

    def visitor(self, path: str = SIGN_IN) -> FlaskClient:
        """A new browser in which the right password was typed just now."""
        browser = self.client.application.test_client()
        answer = send(browser, path, login=self.username, password=PASSWORD, expect=302)
        assert answer.headers["Location"] == CODE
        return browser


@pytest.fixture
def alice(cast: Cast, client: FlaskClient) -> Owner:
    return Owner(client, "alice")


def sessions_of(session: Session, user: User) -> list[UserSession]:
    session.expire_all()
    return list(session.scalars(select(UserSession).where(UserSession.user_id == user.id).order_by(UserSession.id)))


def is_signed_in(browser: FlaskClient) -> bool:
    return browser.get("/").status_code == 200


class TestSettingUp:
    def test_a_visitor_is_asked_to_sign_in(self, client: FlaskClient, cast: Cast) -> None:
        assert client.get(HOME).headers["Location"].startswith(SIGN_IN)

    def test_the_page_with_the_key_is_stored_nowhere_and_draws_the_code_itself(
        self, client: FlaskClient, cast: Cast
    ) -> None:
        sign_in(client, "alice")
        answer = send(client, SET_UP, form_at=HOME, expect=200)
        page = answer.get_data(as_text=True)
        assert answer.headers["Cache-Control"] == "no-store"
        picture = re.search(r'<img class="qr" src="(data:image/svg\+xml[^"]+)"[^>]* alt="[^"]{20,}"', page)
        assert picture
        assert "style" not in picture[1]
        assert f"secret={key_of(page)}" in html.unescape(page)

    def test_reading_a_page_shows_no_key_and_stores_nothing(
        self, client: FlaskClient, cast: Cast, session: Session
    ) -> None:
        sign_in(client, "alice")
        assert client.get(SET_UP).status_code == 404
        send(client, SET_UP, form_at=HOME, expect=200)
        assert session.scalar(select(func.count()).select_from(SecondFactor)) == 0

    def test_a_wrong_code_is_told_beside_its_field_and_the_same_key_stays(
        self, client: FlaskClient, cast: Cast, session: Session
    ) -> None:
        sign_in(client, "alice")
        page = send(client, SET_UP, form_at=HOME, expect=200).get_data(as_text=True)
        given = {"form_at": HOME, "sealed": hidden(page, "sealed"), "expect": 422}
        for code in ("abc", "", "12345"):
            again = send(client, TURN_ON, code=code, **given).get_data(as_text=True)
            assert key_of(again) == key_of(page)
        assert session.scalar(select(func.count()).select_from(SecondFactor)) == 0

    def test_a_form_without_its_key_changes_nothing(self, client: FlaskClient, cast: Cast) -> None:
        sign_in(client, "alice")
        send(client, TURN_ON, form_at=HOME, sealed="made up", code="123456", expect=409)

    def test_ten_recovery_codes_are_shown_once(self, alice: Owner) -> None:
        assert len(alice.recovery) == 10
        page = read(alice.client, HOME)
        assert "10 of 10 left" in words(page)
        assert not RECOVERY.findall(page)

    def test_they_can_be_had_as_a_file_without_any_script(self, alice: Owner) -> None:
        given = {"form_at": HOME, "codes": " ".join(alice.recovery)}
        answer = send(alice.client, f"{CODES}/download", expect=200, **given)
        assert answer.mimetype == "text/plain"
        assert 'filename="recovery-codes.txt"' in answer.headers["Content-Disposition"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert all(code in answer.get_data(as_text=True) for code in alice.recovery)

    def test_the_file_holds_nothing_that_somebody_made_up(self, alice: Owner) -> None:
        send(alice.client, f"{CODES}/download", form_at=HOME, codes="<script>", expect=404)

    def test_the_other_sessions_end(self, client: FlaskClient, cast: Cast) -> None:
        elsewhere = sign_in(client.application.test_client(), "alice")
        Owner(client, "alice")
        assert not is_signed_in(elsewhere)
        assert is_signed_in(client)

    def test_no_secret_stands_on_the_trail(self, alice: Owner, session: Session) -> None:
        told = " ".join(str(event.changes) for event in session.scalars(select(AuditEvent)))
        assert alice.app.secret not in told
        assert not [code for code in alice.recovery if code in told]


class TestSigningIn:
    def test_the_password_alone_begins_no_session(self, alice: Owner, cast: Cast, session: Session) -> None:
        before = len(sessions_of(session, cast.alice))
        browser = alice.visitor()
        assert not is_signed_in(browser)
        assert len(sessions_of(session, cast.alice)) == before

    def test_a_code_signs_in_and_leads_to_where_she_was_going(
        self, alice: Owner, cast: Cast, session: Session
    ) -> None:
        browser = alice.visitor(f"{SIGN_IN}?next=/groups/acme/-/runners%3Fstatus%3Donline")
        answer = fill(browser, CODE, code=alice.code())
        assert answer.headers["Location"] == "/groups/acme/-/runners?status=online"
        newest = sessions_of(session, cast.alice)[-1]
        assert (newest.method, newest.second_factor) == ("password", True)

    def test_a_code_signs_in_once(self, alice: Owner) -> None:
        code = alice.code()
        fill(alice.visitor(), CODE, code=code)
        browser = alice.visitor()
        said = words(fill(browser, CODE, code=code, expect=422).get_data(as_text=True))
        assert "used already" in said
        assert not is_signed_in(browser)

    def test_a_recovery_code_signs_in_once(self, alice: Owner) -> None:
        browser = alice.visitor()
        assert f"{CODE}?recovery=1" in links(read(browser, CODE))
        fill(browser, f"{CODE}?recovery=1", code=alice.recovery[0])
        assert is_signed_in(browser)
        assert "9 of 10 left" in words(read(browser, HOME))
        fill(alice.visitor(), CODE, code=alice.recovery[0], expect=422)

    def test_nothing_typed_is_told_and_counts_as_nothing(self, alice: Owner, session: Session) -> None:
        said = fill(alice.visitor(), CODE, code=" ", expect=422).get_data(as_text=True)
        assert "Type the code." in words(said)
        assert session.scalar(select(func.count()).where(AuditEvent.action == "second_factor_refused")) == 0

    def test_a_wrong_code_is_not_repeated_and_leaves_an_event(self, alice: Owner, session: Session) -> None:
        wrong = alice.wrong()
        page = fill(alice.visitor(), CODE, code=wrong, expect=422).get_data(as_text=True)
        assert "This code is wrong." in words(page)
        assert wrong not in page
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "second_factor_refused")).one()
        assert (event.actor_kind, event.target_name) == ("visitor", "Alice Lam")

    def test_after_five_wrong_codes_it_begins_again_with_the_password(self, alice: Owner) -> None:
        browser = alice.visitor(f"{SIGN_IN}?next=/groups/acme")
        for _ in range(4):
            fill(browser, CODE, code=alice.wrong(), expect=422)
        answer = fill(browser, CODE, code=alice.wrong())
        assert answer.headers["Location"] == f"{SIGN_IN}?next=/groups/acme"
        assert browser.get(CODE).headers["Location"] == SIGN_IN

    def test_then_even_the_right_code_waits_but_a_recovery_code_does_not(self, alice: Owner) -> None:
        browser = alice.visitor()
        for _ in range(5):
            fill(browser, CODE, code=alice.wrong(), expect=422 if _ < 4 else 302)
        assert "only a recovery code is taken" in words(read(alice.visitor(), CODE))
        browser = alice.visitor()
        fill(browser, CODE, code=alice.code())
        assert not is_signed_in(browser)
        browser = alice.visitor()
        fill(browser, CODE, code=alice.recovery[0])
        assert is_signed_in(browser)

    def test_an_old_cookie_gives_no_more_guesses(self, alice: Owner) -> None:
        browser = alice.visitor()
        kept = browser.get_cookie("__Host-portal_session")
        assert kept is not None
        for number in range(8):
            browser.set_cookie("__Host-portal_session", kept.value, secure=True)
            fill(browser, CODE, code=alice.wrong(), expect=422 if number < 4 else 302)
        browser.set_cookie("__Host-portal_session", kept.value, secure=True)
        fill(browser, CODE, code=alice.code())
        assert not is_signed_in(browser)

    def test_ten_minutes_later_it_begins_again(self, alice: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
        browser = alice.visitor()
        monkeypatch.setattr(pending_sign_ins, "now", lambda: now() + timedelta(minutes=10, seconds=2))
        assert browser.get(CODE).headers["Location"] == SIGN_IN

    def test_another_password_ends_what_waits(self, alice: Owner, cast: Cast, session: Session) -> None:
        browser = alice.visitor()
        session.execute(update(User).where(User.id == cast.alice.id).values(password_digest="another"))
        session.commit()
        assert browser.get(CODE).headers["Location"] == SIGN_IN

    def test_who_is_blocked_meanwhile_does_not_get_in(self, alice: Owner, cast: Cast, session: Session) -> None:
        browser = alice.visitor()
        csrf = csrf_of(read(browser, CODE))
        session.execute(update(User).where(User.id == cast.alice.id).values(blocked_at=now()))
        session.commit()
        answer = browser.post(CODE, data={"csrf_token": csrf, "code": alice.code()})
        assert answer.headers["Location"] == SIGN_IN
        assert not is_signed_in(browser)

    def test_without_the_first_proof_there_is_no_second(self, client: FlaskClient, alice: Owner) -> None:
        stranger = client.application.test_client()
        assert stranger.get(CODE).headers["Location"] == SIGN_IN
        answer = stranger.post(CODE, data={"csrf_token": csrf_of(read(stranger, SIGN_IN)), "code": alice.code()})
        assert answer.headers["Location"] == SIGN_IN

    def test_a_wrong_password_does_not_tell_that_there_is_a_second_factor(self, alice: Owner) -> None:
        browser = alice.client.application.test_client()
        said = send(browser, SIGN_IN, login="alice", password="not hers at all", expect=422)
        assert "wrong" in words(said.get_data(as_text=True))

    def test_somebody_else_can_begin_instead(self, alice: Owner) -> None:
        browser = alice.visitor()
        fill(browser, f"{CODE}/cancel", form_at=CODE, expect=303)
        assert browser.get(CODE).headers["Location"] == SIGN_IN

    def test_a_lost_key_is_told_and_a_recovery_code_still_signs_in(
        self, alice: Owner, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strange = Configured(Demand.OPTIONAL, Vault(["a key that nothing was encrypted with"], "second factors"))
        monkeypatch.setitem(app.extensions, "second_factor", strange)
        browser = alice.visitor()
        page = fill(browser, CODE, code=alice.code(), expect=422).get_data(as_text=True)
        assert "can no longer read the key" in words(page)
        fill(browser, CODE, code=alice.recovery[0])
        assert is_signed_in(browser)


class TestChangingIt:
    def test_new_recovery_codes_are_shown_once_and_end_the_old(self, alice: Owner) -> None:
        assert "The 10 that are left" in words(read(alice.client, CODES))
        answer = fill(alice.client, CODES, expect=200)
        assert answer.headers["Cache-Control"] == "no-store"
        new = RECOVERY.findall(answer.get_data(as_text=True))
        assert len(set(new) | set(alice.recovery)) == 20
        fill(alice.visitor(), CODE, code=alice.recovery[0], expect=422)

    def test_turning_off_needs_a_code(self, alice: Owner) -> None:
        fill(alice.client, f"{HOME}/turn-off", code=alice.wrong(), expect=422)
        fill(alice.client, f"{HOME}/turn-off", code="", expect=422)
        fill(alice.client, f"{HOME}/turn-off", code=alice.code())
        assert is_signed_in(sign_in(alice.client.application.test_client(), "alice"))

    def test_who_has_none_is_offered_one(self, client: FlaskClient, cast: Cast) -> None:
        sign_in(client, "bob")
        for path in (CODES, f"{HOME}/turn-off"):
            assert "Set up an authenticator app" in words(read(client, path))
            fill(client, path, code="123456", expect=404)

    def test_it_moves_to_another_app(self, alice: Owner) -> None:
        page = send(alice.client, SET_UP, form_at=HOME, expect=200).get_data(as_text=True)
        old, alice.app, alice.steps = alice.app, pyotp.TOTP(key_of(page)), -1
        fields = {"sealed": hidden(page, "sealed"), "code": alice.code()}
        send(alice.client, TURN_ON, form_at=HOME, expect=200, **fields)
        browser = alice.visitor()
        fill(browser, CODE, code=old.at(now(), counter_offset=1), expect=422)
        fill(browser, CODE, code=alice.code())
        assert is_signed_in(browser)

    def test_wrong_codes_of_the_last_day_are_shown_to_her(self, alice: Owner) -> None:
        fill(alice.visitor(), CODE, code=alice.wrong(), expect=422)
        assert "1 wrong code was typed for you" in words(read(alice.client, HOME))


class TestDemanded:
    @pytest.fixture
    def demand(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Any:
        def of(demand: Demand) -> None:
            present: Configured = app.extensions["second_factor"]
            monkeypatch.setitem(app.extensions, "second_factor", Configured(demand, present.vault))

        return of

    def test_who_has_none_sets_one_up_and_can_do_nothing_else(
        self, client: FlaskClient, cast: Cast, demand: Any
    ) -> None:
        demand(Demand.EVERYBODY)
        sign_in(client, "alice")
        for path in ("/", "/groups/acme", "/groups/acme/-/runners/new", "/-/account/sessions"):
            assert client.get(path).headers["Location"] == HOME
        csrf = csrf_of(read(client, HOME))
        answer = client.post("/groups/acme/-/edit", data={"csrf_token": csrf, "name": "Acme", "path": "taken-over"})
        assert answer.headers["Location"] == HOME
        page = words(read(client, HOME))
        assert "demands a second factor of you" in page

    def test_once_it_is_set_up_every_page_opens(self, client: FlaskClient, cast: Cast, demand: Any) -> None:
        demand(Demand.EVERYBODY)
        owner = Owner(client, "alice")
        assert is_signed_in(client)
        assert "Without it your password alone" not in words(read(client, HOME))
        fill(client, f"{HOME}/turn-off", code=owner.code(), expect=403)

    def test_of_administrators_only(self, client: FlaskClient, cast: Cast, demand: Any) -> None:
        demand(Demand.ADMINISTRATORS)
        assert is_signed_in(sign_in(client, "alice"))
        assert not is_signed_in(sign_in(client.application.test_client(), "dana"))

    def test_who_gave_one_at_their_provider_is_fine(
        self, client: FlaskClient, cast: Cast, session: Session, demand: Any
    ) -> None:
        demand(Demand.EVERYBODY)
        sign_in(client, "alice")
        session.execute(update(UserSession).values(method="openid", second_factor=True))
        session.commit()
        assert is_signed_in(client)

    def test_a_chosen_password_comes_first(
        self, client: FlaskClient, cast: Cast, session: Session, demand: Any
    ) -> None:
        demand(Demand.EVERYBODY)
        session.execute(update(User).where(User.id == cast.alice.id).values(must_change_password=True))
        session.commit()
        sign_in(client, "alice")
        assert client.get(HOME).headers["Location"] == "/-/account/password"
        assert client.get("/-/account/password").status_code == 200

    def test_signing_out_is_always_possible(self, client: FlaskClient, cast: Cast, demand: Any) -> None:
        demand(Demand.EVERYBODY)
        sign_in(client, "alice")
        send(client, "/-/sign-out", form_at=HOME, expect=302)
        assert client.get("/").headers["Location"].startswith(SIGN_IN)

    def test_a_session_that_began_while_it_was_set_up_elsewhere_proves_it(
        self, client: FlaskClient, cast: Cast, session: Session, demand: Any
    ) -> None:
        owner = Owner(client, "alice")
        session.execute(update(UserSession).values(second_factor=False))
        session.commit()
        demand(Demand.EVERYBODY)
        asked = client.get("/groups/acme").headers["Location"]
        assert asked.startswith("/-/confirm?next=")
        fill(client, asked, password=PASSWORD, code=owner.code(), expect=303)
        assert is_signed_in(client)

    def test_after_an_administrator_removed_it_she_sets_one_up_again(
        self, client: FlaskClient, cast: Cast, session: Session, demand: Any
    ) -> None:
        Owner(client, "alice")
        session.execute(delete(SecondFactor))
        session.execute(delete(UserSession))
        session.commit()
        demand(Demand.EVERYBODY)
        sign_in(client, "alice")
        assert client.get("/").headers["Location"] == HOME


def test_a_copy_of_the_cookie_from_before_a_change_of_the_factor_is_worth_nothing(
    client: FlaskClient, cast: Cast
) -> None:
    sign_in(client, "alice")
    copied = copy_of(client)
    page = send(client, SET_UP, form_at=HOME, expect=200).get_data(as_text=True)
    app = pyotp.TOTP(key_of(page))
    assert is_signed_in(copied)
    send(client, TURN_ON, form_at=HOME, expect=200, sealed=hidden(page, "sealed"), code=app.at(now()))
    assert (is_signed_in(copied), is_signed_in(client)) == (False, True)
    copied = copy_of(client)
    fill(client, f"{HOME}/turn-off", code=app.at(now(), counter_offset=1), expect=302)
    assert (is_signed_in(copied), is_signed_in(client)) == (False, True)
