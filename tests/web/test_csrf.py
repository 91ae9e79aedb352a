"""No form is taken that did not come from a page of ours: every address that takes a form is tried."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete
from werkzeug.routing import Rule

from portal.domain.scopes import INSTANCE
from portal.models import Runner, UserSession
from tests.cast import Cast, csrf_of, sign_in
from tests.web.reading import poll, read, words


def rules(app: Flask) -> list[Rule]:
    return [
        rule
        for rule in app.url_map.iter_rules()
        if "POST" in (rule.methods or ()) and not rule.rule.startswith("/api/")
    ]


def test_every_form_without_its_token_is_refused_and_nothing_happens(
    app: Flask, cast: Cast, client: FlaskClient
) -> None:
    scopes = {"instance": INSTANCE, "group": cast.acme, "project": cast.web}
    issued = {kind: cast.runner(scope) for kind, scope in scopes.items()}
    sign_in(client, "dana")
    tried = rules(app)
    assert len(tried) >= 30
    fixed = {"group_path": "acme", "project_path": "acme/web", "user_id": cast.erin.id}
    with app.test_request_context():
        addresses = []
        for rule in tried:
            here = issued.get(rule.endpoint.partition("_")[0], issued["instance"])
            places = {
                **dict.fromkeys(rule.arguments, 1),
                **fixed,
                "runner_id": here.runner.id,
                "token_id": here.record.id,
            }
            adapter = app.url_map.bind("localhost")
            addresses.append(adapter.build(rule.endpoint, places, append_unknown=False))
    for address in addresses:
        answer = client.post(address, data={"tags": "stolen", "typed": "acme", "role": "50", "login": "charlie"})
        assert answer.status_code == 400, address
        assert "The form was open for too long, or cookies are off." in words(answer.get_data(as_text=True))
    assert [poll(client, each.token) for each in issued.values()] == [204, 204, 204]
    assert cast.session.query(Runner).count() == 3
    read(client, "/")


@pytest.mark.parametrize("token", ["", "nonsense", "IjEyMyI.aaaa.bbbb"])
def test_a_made_up_token_is_refused(cast: Cast, client: FlaskClient, token: str) -> None:
    sign_in(client, "alice")
    answer = client.post("/groups/acme/-/delete", data={"csrf_token": token, "typed": "acme"})
    assert answer.status_code == 400
    read(client, "/groups/acme")


def test_another_persons_token_is_refused(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    charlie = sign_in(client.application.test_client(), "charlie")
    page = read(charlie, "/")
    theirs = page[page.index('name="csrf_token" value="') + 25 :].partition('"')[0]
    answer = client.post("/groups/acme/-/delete", data={"csrf_token": theirs, "typed": "acme"})
    assert answer.status_code == 400
    read(client, "/groups/acme")


def test_a_link_changes_nothing(app: Flask, cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.acme).runner
    sign_in(client, "alice")
    for page in ("pause", "resume"):
        assert client.get(f"/groups/acme/-/runners/{runner.id}/{page}").status_code in (404, 405)
    assert client.get("/-/sign-out").status_code in (302, 404, 405)
    read(client, "/groups/acme")


OURS = {"Origin": "http://localhost"}
TYPED = {"name": "Apex", "path": "apex", "description": "The long story\nof <b>this</b> group"}


@pytest.mark.parametrize("how", ["session ended", "cookie gone", "wrong token"])
def test_what_was_typed_into_a_refused_form_can_be_copied(cast: Cast, client: FlaskClient, how: str) -> None:
    csrf = csrf_of(read(sign_in(client, "alice"), "/groups/acme/-/edit"))
    if how == "session ended":
        cast.session.execute(delete(UserSession))
        cast.session.commit()
    elif how == "cookie gone":
        client.delete_cookie("__Host-portal_session")
    fields = {"csrf_token": "forged" if how == "wrong token" else csrf, **TYPED}
    answer = client.post("/groups/acme/-/edit", data=fields, headers=OURS)
    page = answer.get_data(as_text=True)
    assert answer.status_code in (400, 403)
    assert "What you typed, to be copied" in page
    assert "The long story\nof &lt;b&gt;this&lt;/b&gt; group" in page


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost.evil.example"])
def test_words_that_another_site_sends_are_not_shown_as_ours(
    cast: Cast, client: FlaskClient, origin: str | None
) -> None:
    headers = {"Origin": origin} if origin else {}
    answer = client.post("/groups/acme/-/edit", data={"csrf_token": "x", **TYPED}, headers=headers)
    assert answer.status_code == 400
    assert "long story" not in answer.get_data(as_text=True)


def test_a_password_is_never_given_back(cast: Cast, client: FlaskClient) -> None:
    fields = {"csrf_token": "x", "login": "alice", "password": "hunter2 hunter2", "old": "hunter2", "new": "hunter2"}
    for page in ("/-/sign-in", "/-/account/password"):
        answer = client.post(page, data=fields, headers=OURS)
        assert answer.status_code == 400
        assert "hunter2" not in answer.get_data(as_text=True)
