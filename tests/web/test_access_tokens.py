"""Access tokens in the browser: the list, a new one shown once, revoking, and what other pages say of them."""

from __future__ import annotations

import html
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.people import people
from portal.models import AccessToken, AuditEvent, TokenScope, UserSession
from tests.cast import Cast, csrf_of, hidden, sign_in
from tests.domain.queries import asked
from tests.web.reading import links, part, read, words
from tests.web.test_shown_once import cookie_text

PAGE = "/-/account/access-tokens"
NEW = f"{PAGE}/new"
TOKEN = re.compile(r"glpat-[0-9A-Za-z]{27}\.0r[0-9a-z]{7}")


@pytest.fixture
def alice(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "alice")


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


def day(later: int) -> str:
    return (now().date() + timedelta(days=later)).isoformat()


def filled(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    """The form as its page has it, with these fields written over."""
    page = read(client, NEW)
    kept = {"csrf_token": csrf_of(page), "request_key": hidden(page, "request_key")}
    return {**kept, "name": "nightly", "scopes": ["api"], "expires_at": day(30), **fields}


def create(client: FlaskClient, expect: int = 200, **fields: Any) -> Any:
    answer = client.post(NEW, data=filled(client, **fields))
    assert answer.status_code == expect, words(answer.get_data(as_text=True))
    return answer


def token_on(answer: Any) -> str:
    found = TOKEN.search(answer.get_data(as_text=True))
    assert found, "the page shows no access token"
    return found[0]


def secret_of(token: str) -> str:
    return token.partition("-")[2][4:]


def revoke(client: FlaskClient, address: str) -> str:
    """What the page says that follows."""
    page = read(client, address)
    answer = client.post(address, data={"csrf_token": csrf_of(page)}, follow_redirects=True)
    return words(answer.get_data(as_text=True))


def of(cast: Cast, **where: Any) -> AccessToken:
    cast.session.expire_all()
    return cast.session.scalars(select(AccessToken).filter_by(**where)).one()


# The list


def test_an_empty_list_says_what_tokens_are_for(alice: FlaskClient) -> None:
    says = words(read(alice, PAGE))
    assert "You have no access token. With one, curl, python-gitlab, glab or Terraform" in says
    assert "for 365 days at most" in says
    assert "Expired and revoked" not in says


def test_each_token_is_told_with_its_scopes_its_state_and_its_last_use(alice: FlaskClient, cast: Cast) -> None:
    token = cast.access_token(cast.alice, "read_api", "create_runner", days=200)
    cast.session.execute(
        update(AccessToken).values(last_used_at=now() - timedelta(hours=3), last_used_address="192.0.2.9")
    )
    cast.session.commit()
    says = words(read(alice, PAGE))
    assert f"a test's {token[6:10]}… create_runner read_api Good" in says
    assert "in 199 days" in says or "in 200 days" in says
    assert "3 hours ago from 192.0.2.9 Trail of a test's Rotate a test's Revoke a test's" in says
    assert secret_of(token) not in says


def test_those_that_have_ended_stand_apart(alice: FlaskClient, cast: Cast) -> None:
    for _ in range(3):
        cast.access_token(cast.alice, days=5)
    first, second, _ = cast.session.scalars(select(AccessToken).order_by(AccessToken.id))
    first.expires_at = now().date() - timedelta(days=2)
    second.revoked_at = now() - timedelta(days=1)
    cast.session.commit()
    good, _, ended = words(read(alice, PAGE)).partition("Expired and revoked")
    assert good.count("Expires soon") == 1
    assert "· 2" in ended
    assert ended.index("Revoked") < ended.index("Expired")
    assert links(read(alice, PAGE)).count(f"{PAGE}/{first.id}/revoke") == 0


def test_a_longer_list_asks_the_database_no_more_often(alice: FlaskClient, cast: Cast, session: Session) -> None:
    counts = []
    for _ in range(2):
        for _ in range(4):
            cast.access_token(cast.alice)
        with asked(session) as statements:
            read(alice, PAGE)
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_somebody_elses_tokens_stand_nowhere(alice: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.bob)
    assert "a test's" not in read(alice, PAGE)
    read(alice, f"{PAGE}/{of(cast).id}/revoke", expect=404)


def test_the_account_and_the_menu_lead_there(alice: FlaskClient, cast: Cast) -> None:
    assert "Access tokens None. Scripts and tools" in words(read(alice, "/-/account"))
    cast.access_token(cast.alice)
    assert "Access tokens 1 is good." in words(read(alice, "/-/account"))
    assert PAGE in links(read(alice, "/"))


# A new one


def test_a_new_token_is_shown_with_three_first_steps_and_works(app: Flask, alice: FlaskClient) -> None:
    answer = create(alice, scopes=["read_api", "create_runner"], description="each night")
    token, page = token_on(answer), answer.get_data(as_text=True)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "shown once" in words(page)
    for block in ("curl", "python", "environment"):
        text = html.unescape(words(part(page, f"block-{block}").split("</pre>")[0]))
        assert token in text
        assert "https://portal.example.com" in text
    script = app.test_client().get("/api/v4/user", headers={"PRIVATE-TOKEN": token})
    assert script.get_json()["username"] == "alice"


def test_the_form_proposes_thirty_days_and_says_what_each_scope_opens(alice: FlaskClient) -> None:
    page = read(alice, NEW)
    assert f'value="{day(30)}" min="{day(1)}" max="{day(365)}"' in page
    says = words(page)
    assert "create_runner Creates runners where you may (POST /user/runners), and nothing else." in says
    assert "read_api Reads everything that you may see, and changes nothing." in says


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", " ", "Say what it is for"),
        ("name", "x" * 256, "at most 255 characters"),
        ("description", "x" * 1025, "at most 1024 characters"),
        ("scopes", [], "Choose at least one scope."),
        ("scopes", ["sudo"], "There is no scope 'sudo'"),
        ("expires_at", "", "Choose a day from"),
        ("expires_at", "soon", "Choose a day from"),
        ("expires_at", day(0), "Choose a day from"),
        ("expires_at", day(366), "Choose a day from"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_stays(
    alice: FlaskClient, cast: Cast, field: str, value: Any, says: str
) -> None:
    page = create(alice, expect=422, **{"name": "nightly", "description": "each night", field: value}).get_data(
        as_text=True
    )
    assert says in words(part(page, f"{field}-help"))
    assert f'href="#{field}"' in page
    assert f'id="{field}"' in page
    kept = {"name": 'value="nightly"', "description": ">each night<", "scopes": 'value="api" checked'}
    assert [text for name, text in kept.items() if name != field and text not in page] == []
    assert cast.session.scalar(select(func.count()).select_from(AccessToken)) == 0


def test_the_same_form_sent_again_shows_nothing_and_makes_no_second_one(alice: FlaskClient, cast: Cast) -> None:
    form = filled(alice)
    token = token_on(alice.post(NEW, data=form))
    for name in ("nightly", "another"):
        again = alice.post(NEW, data={**form, "name": name})
        assert (again.status_code, again.headers["Location"]) == (303, PAGE)
        assert secret_of(token) not in again.get_data(as_text=True)
        assert secret_of(token) not in cookie_text(alice.application, alice)
    assert "cannot be shown again" in words(read(alice, PAGE))
    assert cast.session.scalar(select(func.count()).select_from(AccessToken)) == 1


def test_a_form_without_its_key_makes_nothing(alice: FlaskClient, cast: Cast) -> None:
    assert "Open the page again" in words(create(alice, expect=422, request_key="x").get_data(as_text=True))
    assert cast.session.scalar(select(func.count()).select_from(AccessToken)) == 0


def test_no_page_trail_or_log_line_holds_it_afterwards(
    app: Flask, alice: FlaskClient, cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        token = token_on(create(alice))
        for name in ("PRIVATE-TOKEN", "Authorization"):
            shown = token if name == "PRIVATE-TOKEN" else f"Bearer {token}"
            app.test_client().get(f"/api/v4/{token}", headers={name: shown})
            app.test_client().get(f"/api/v4/user?private_token={token}", headers={name: shown})
    assert secret_of(token) not in caplog.text
    number = of(cast).id
    pages = [read(alice, path) for path in (PAGE, NEW, f"{PAGE}/{number}/revoke", "/-/account", "/")]
    dana = sign_in(app.test_client(), "dana")
    pages += [read(dana, path) for path in (f"/admin/people/{cast.alice.id}", "/admin/trail")]
    assert [page for page in pages if secret_of(token) in page] == []


def test_a_new_token_asks_for_a_recent_sign_in(alice: FlaskClient, cast: Cast) -> None:
    form = filled(alice)
    cast.session.execute(update(UserSession).values(confirmed_at=now() - timedelta(hours=1)))
    cast.session.commit()
    assert alice.get(NEW).headers["Location"].startswith("/-/confirm")
    assert alice.post(NEW, data=form).headers["Location"].startswith("/-/confirm")
    assert cast.session.scalar(select(func.count()).select_from(AccessToken)) == 0


def test_every_scope_has_a_sentence_of_what_it_opens(alice: FlaskClient) -> None:
    page = read(alice, NEW)
    for scope in TokenScope:
        assert words(part(page, f"scope-{scope}-help").split("</div>")[0]).endswith(".")


# Revoking


def test_revoking_says_first_when_it_was_last_used_and_then_ends_it(
    app: Flask, alice: FlaskClient, cast: Cast
) -> None:
    token = cast.access_token(cast.alice)
    address = f"{PAGE}/{of(cast).id}/revoke"
    assert "It was never used, so nothing stops working." in words(read(alice, address))
    cast.session.execute(
        update(AccessToken).values(last_used_at=now() - timedelta(minutes=5), last_used_address="192.0.2.9")
    )
    cast.session.commit()
    assert "It was last used 5 minutes ago , from 192.0.2.9. Whatever uses it is refused" in words(
        read(alice, address)
    )
    assert "“a test's” is revoked" in revoke(alice, address)
    assert app.test_client().get("/api/v4/user", headers={"PRIVATE-TOKEN": token}).status_code == 401
    assert "has ended already" in words(read(alice, address))


def test_an_administrator_revokes_somebodys_on_their_page(dana: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.alice, "read_api")
    person = f"/admin/people/{cast.alice.id}"
    address = f"{PAGE}/{of(cast).id}/revoke"
    assert address in links(read(dana, person))
    assert "Whose Alice Lam" in words(read(dana, address))
    assert person in links(read(dana, address))
    says = revoke(dana, address)
    assert "Alice Lam has no access token that is good." in says
    event = cast.session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    assert (event.action, event.actor_id, event.target_id) == ("access_token_revoked", cast.dana.id, cast.alice.id)


# What other pages say


@pytest.mark.parametrize("page", ["/", "/-/account"])
def test_who_has_a_token_that_ends_within_a_week_is_told(alice: FlaskClient, cast: Cast, page: str) -> None:
    cast.access_token(cast.alice, days=20)
    cast.access_token(cast.bob, days=2)
    assert "expire" not in words(read(alice, page))
    cast.access_token(cast.alice, days=7)
    assert "Your access token “a test's” expires in " in words(read(alice, page))
    cast.access_token(cast.alice, days=3)
    assert "2 of your access tokens expire within 7 days" in words(read(alice, page))


def test_acts_with_a_person_say_what_becomes_of_their_tokens(dana: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.erin)
    cast.access_token(cast.erin)
    sign_in(dana.application.test_client(), "erin")
    for act, says in (
        ("block", "Their 2 access tokens are refused as long as they are blocked"),
        ("delete", "2 access tokens: scripts that use them stop"),
        ("end-sessions", "Their 2 access tokens go on working."),
        ("reset-password", "Their 2 access tokens go on working"),
    ):
        assert says in words(read(dana, f"/admin/people/{cast.erin.id}/{act}"))


def test_ones_own_password_and_sessions_leave_tokens_as_they_are_and_say_so(app: Flask, alice: FlaskClient) -> None:
    token = token_on(create(alice))
    assert "Your access tokens go on working" in words(read(alice, "/-/account/password"))
    assert "Access tokens are no sessions" in words(read(alice, "/-/account/sessions"))
    page = read(alice, "/-/account/password")
    new = "another long enough sentence"
    changed = {"csrf_token": csrf_of(page), "old": "correct horse battery", "new": new, "again": new}
    assert alice.post("/-/account/password", data=changed).status_code == 302
    assert app.test_client().get("/api/v4/user", headers={"PRIVATE-TOKEN": token}).status_code == 200


# The trail


def test_what_a_script_did_is_its_persons_and_names_the_token(app: Flask, dana: FlaskClient, cast: Cast) -> None:
    token = cast.access_token(cast.alice)
    made = app.test_client().post(
        "/api/v4/user/personal_access_tokens",
        json={"name": "second", "scopes": ["read_api"]},
        headers={"PRIVATE-TOKEN": token},
    )
    assert made.status_code == 201
    for trail in ("/admin/trail", f"/admin/people/{cast.alice.id}", f"/admin/people/{cast.alice.id}/trail"):
        page = read(dana, trail)
        says = words(page)
        assert f"Alice Lam (access token a test's, {token[6:10]}…) made an access token token: " in says
        assert "access token: second" in says
        person = f"/admin/people/{cast.alice.id}/trail"
        assert re.search(rf'<a href="{person}"><b>Alice Lam \(access token', page)
        assert f"Who access_token of user {cast.alice.id} Alice Lam (access token" in says


def test_what_an_administrator_does_names_whose_token_it_is(dana: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.alice)
    revoke(dana, f"{PAGE}/{of(cast).id}/revoke")
    assert "Dana Kay revoked an access token of Alice Lam" in words(read(dana, "/admin/trail"))


# Rotating, and the trail of one


def test_rotating_shows_a_new_token_once_and_ends_the_old_one(
    alice: FlaskClient, cast: Cast, session: Session
) -> None:
    old = token_on(create(alice, name="pipeline", scopes=["read_api"]))
    page = f"{PAGE}/{of(cast, name='pipeline').id}/rotate"
    assert f'href="{page}"' in read(alice, PAGE)
    form = read(alice, page)
    assert "this one ends at once" in words(form)
    fields = {"csrf_token": csrf_of(form), "request_key": hidden(form, "request_key"), "expires_at": day(9)}
    answer = alice.post(page, data=fields)
    assert answer.headers["Cache-Control"] == "no-store"
    new = token_on(answer)
    assert new != old
    session.expire_all()
    live = of(cast, name="pipeline", revoked_at=None)
    assert (live.scopes, live.expires_at.isoformat()) == (["read_api"], day(9))
    asking = "/api/v4/personal_access_tokens/self"
    assert alice.get(asking, headers={"PRIVATE-TOKEN": old}).status_code == 401
    assert alice.get(asking, headers={"PRIVATE-TOKEN": new}).status_code == 200
    again = alice.post(page, data=fields, follow_redirects=True)
    assert "This form was already sent" in words(again.get_data(as_text=True))
    assert secret_of(new) not in again.get_data(as_text=True)
    assert len(session.scalars(select(AccessToken)).all()) == 2


def test_a_day_that_is_none_is_told_beside_its_field_and_rotates_nothing(alice: FlaskClient, cast: Cast) -> None:
    create(alice)
    page = f"{PAGE}/{of(cast, name='nightly').id}/rotate"
    form = read(alice, page)
    fields = {"csrf_token": csrf_of(form), "request_key": hidden(form, "request_key"), "expires_at": ""}
    answer = alice.post(page, data=fields)
    assert answer.status_code == 422
    assert "Choose a day from" in words(answer.get_data(as_text=True))
    assert of(cast, name="nightly").revoked_at is None


def test_a_revoked_token_is_not_rotated(alice: FlaskClient, cast: Cast) -> None:
    create(alice)
    number = of(cast, name="nightly").id
    form = read(alice, f"{PAGE}/{number}/rotate")
    revoke(alice, f"{PAGE}/{number}/revoke")
    fields = {"csrf_token": csrf_of(form), "request_key": hidden(form, "request_key"), "expires_at": day(9)}
    answer = alice.post(f"{PAGE}/{number}/rotate", data=fields)
    assert answer.status_code == 409
    assert "was revoked" in words(answer.get_data(as_text=True))
    assert len(cast.session.scalars(select(AccessToken)).all()) == 1


def test_nobody_rotates_the_token_of_somebody_else(dana: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.alice)
    number = of(cast, user_id=cast.alice.id).id
    assert dana.get(f"{PAGE}/{number}/rotate").status_code == 404
    assert "Rotate" not in words(read(dana, f"/admin/people/{cast.alice.id}"))


def test_a_token_leads_to_what_was_done_with_it_alone(alice: FlaskClient, cast: Cast, app: Flask) -> None:
    token = token_on(create(alice, name="pipeline"))
    create(alice, name="another")
    asking = app.test_client()
    made = asking.post(
        "/api/v4/user/runners",
        headers={"PRIVATE-TOKEN": token},
        json={"runner_type": "group_type", "group_id": cast.acme.id, "description": "by-script"},
    )
    assert made.status_code == 201
    number, other = of(cast, name="pipeline").id, of(cast, name="another").id
    assert f'href="{PAGE}/{number}/trail"' in read(alice, PAGE)
    says = words(read(alice, f"{PAGE}/{number}/trail"))
    assert "created the runner by-script" in says
    assert "made an access token" in says
    assert "another" not in says
    assert "by-script" not in words(read(alice, f"{PAGE}/{other}/trail"))
    charlie = sign_in(app.test_client(), "charlie")
    assert charlie.get(f"{PAGE}/{number}/trail").status_code == 404
    dana = sign_in(app.test_client(), "dana")
    assert "created the runner by-script" in words(read(dana, f"{PAGE}/{number}/trail"))


def test_a_blocked_persons_tokens_are_not_called_good(dana: FlaskClient, cast: Cast) -> None:
    cast.access_token(cast.alice, days=200)
    person = f"/admin/people/{cast.alice.id}"
    assert "api Good" in words(read(dana, person))
    people.block(cast.session, cast.as_(cast.dana), cast.alice)
    cast.session.commit()
    says = words(read(dana, person))
    assert "api Without power" in says
    assert "api Good" not in says


def test_the_answer_to_a_refused_form_is_no_page_to_come_back_to(alice: FlaskClient) -> None:
    answer = create(alice, expect=422, name="")
    assert f'data-address="{NEW}"' in answer.get_data(as_text=True)
    assert "data-address" not in read(alice, NEW)
