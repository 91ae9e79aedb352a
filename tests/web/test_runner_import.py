"""Importing runners in the browser: preview, confirmation, report; then machines only change their URL."""

import io
import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain import tokens
from portal.models import Runner
from portal.web import runner_import
from tests.cast import Cast, csrf_of, hidden, sign_in
from tests.domain.test_audit import every_row
from tests.domain.test_runner_import import BARE, CONFIG, CREATED, DASHES, OLD
from tests.web.reading import INFO, fill, links, part, poll, read, verify, words

ADDRESS, CONFIRM = "/admin/import", "/admin/import/confirm"
ALL = (OLD, CREATED, DASHES, BARE)


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


def listed(*entries: dict[str, object]) -> str:
    return json.dumps(entries)


def preview(client: FlaskClient, pasted: str = "", expect: int = 200, **fields: Any) -> str:
    answer = fill(client, ADDRESS, expect=expect, **{"pasted": pasted, "run_untagged": "y", **fields})
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_data(as_text=True)


def confirm(client: FlaskClient, page: str, expect: int = 200) -> str:
    answer = client.post(CONFIRM, data={"csrf_token": csrf_of(page), "plan": hidden(page, "plan")})
    assert answer.status_code == expect
    return answer.get_data(as_text=True)


def secret_of(token: str) -> str:
    return tokens.body(token)[9:]


def test_a_config_toml_is_previewed_confirmed_and_reported(dana: FlaskClient, cast: Cast, session: Session) -> None:
    page = preview(dana, CONFIG, scope="acme/web", tags="docker, linux")
    says = words(page)
    assert "2 runners would be imported" in says
    assert "build-1 What you pasted, runner 1 “build-1”, before at gitlab.example.com" in says
    assert "Where project acme/web docker linux untagged jobs too" in says
    assert f"Token {OLD[:9]} does not expire" in says
    assert session.scalar(select(func.count(Runner.id))) == 0
    page = confirm(dana, page)
    assert "2 runners are imported" in words(page)
    made = [each for each in links(page) if each.startswith("/acme/web/-/runners/")]
    assert len(made) == 2
    runner_page = words(read(dana, made[0]))
    assert "build-1" in runner_page
    assert "Dana Kay imported the runner build-1" in runner_page


@pytest.mark.parametrize("token", ALL)
def test_a_machine_with_an_imported_token_only_changes_its_url(dana: FlaskClient, token: str) -> None:
    assert poll(dana, token) == 403
    confirm(dana, preview(dana, listed({"token": token, "scope": "acme"})))
    assert verify(dana, token) == 200
    answer = dana.post("/api/v4/runners/verify", json={"token": token, "system_id": "s_1", "info": INFO})
    assert answer.get_json()["token"] == token
    assert poll(dana, token) == 204


@pytest.mark.parametrize(("token", "prefix"), [(OLD, "glrtr-t2_"), (CREATED, "glrt-t2_")])
def test_a_machine_can_renew_an_imported_token(dana: FlaskClient, token: str, prefix: str) -> None:
    confirm(dana, preview(dana, listed({"token": token, "scope": "acme"})))
    answer = dana.post("/api/v4/runners/reset_authentication_token", json={"token": token})
    assert answer.status_code == 201
    assert answer.get_json()["token"].startswith(prefix)
    assert (poll(dana, token), poll(dana, answer.get_json()["token"])) == (204, 204)


def test_no_page_field_row_log_or_cookie_holds_an_imported_token(
    dana: FlaskClient, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("portal").debug("this test does see the log")
        page = preview(dana, listed(*({"token": each} for each in ALL), {"token": tokens.make_registration()}))
        plan = hidden(page, "plan")
        report, again = confirm(dana, page), confirm(dana, page)
        refused = preview(dana, f'[[runners]]\ntoken = "{OLD}" oops', expect=422)
        nowhere = preview(dana, listed({"token": BARE}), expect=422, scope="nowhere")
    assert "this test does see the log" in caplog.text
    serializer = URLSafeTimedSerializer(dana.application.config["SECRET_KEY"], salt=runner_import.SALT)
    carried = json.dumps(serializer.loads(plan))
    assert tokens.digest(OLD).hex() in carried, "the plan holds digests, or this test reads nothing"
    cookie = dana.get_cookie("portal_session")
    assert cookie
    rows = every_row(session)
    assert any(OLD[:9] in row for row in rows)
    where = [page, carried, report, again, refused, nowhere, caplog.text, cookie.value, *rows]
    for token in ALL:
        secret = secret_of(token)
        assert not [text for text in where if secret in text or secret.encode().hex() in text]
    assert "GR1348941a" not in page


def test_several_files_are_read_together_with_what_was_pasted(dana: FlaskClient) -> None:
    page = preview(
        dana,
        listed({"token": BARE, "description": "Pasted"}),
        files=[
            (io.BytesIO(CONFIG.encode()), "one/config.toml"),
            (io.BytesIO(listed({"token": DASHES, "description": "Listed"}).encode()), "list.json"),
            (io.BytesIO(CONFIG.encode()), "copy.toml"),
        ],
    )
    says = words(page)
    assert "4 runners would be imported" in says
    assert "The same token stands 2 times: its machines share one runner." in says
    assert "list.json, runner 1 “Listed”" in says
    assert "What you pasted, runner 1 “Pasted”" in says


def test_what_is_skipped_is_told_with_its_reason_and_its_runner(dana: FlaskClient, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    page = preview(
        dana,
        listed(
            {"token": issued.token},
            {"token": tokens.make_registration()},
            {"token": "${RUNNER_TOKEN}", "description": "by variable"},
            {"token": OLD, "scope": "nowhere/at/all"},
        ),
    )
    says = words(part(page, "skipped"))
    assert "Would be skipped: 4" in says
    assert "Its token is known here already. It belongs to Linux build fleet ." in says
    assert "This is a registration token (GR1348941…)" in says
    assert "runner 3 “by variable” In place of the token stands a variable that nobody has filled in." in says
    assert "There is no group or project nowhere/at/all." in says
    assert f"/acme/web/-/runners/{issued.runner.id}" in links(page)
    assert "Nothing can be imported" in words(page)
    assert 'name="plan"' not in page


def test_what_cannot_be_read_is_told_beside_its_field_and_is_not_kept(dana: FlaskClient) -> None:
    page = preview(dana, f'[[runners]]\n  token = "{OLD}', expect=422, scope="acme", tags="docker")
    says = words(page)
    assert "What you pasted cannot be read as TOML: it goes wrong at line 2, column" in words(
        part(page, "pasted-help")
    )
    assert "is not kept in this page, because it holds tokens" in says
    assert secret_of(OLD) not in page
    assert 'value="acme"' in page
    assert 'value="docker"' in page
    broken = [(io.BytesIO(b'[{"token" 3}]'), "broken.json"), (io.BytesIO(b"\xff\xfe"), "binary.toml")]
    page = preview(dana, expect=422, files=broken)
    beside = words(part(page, "files-help"))
    assert "broken.json cannot be read as JSON: it goes wrong at line 1, column 11." in beside
    assert "binary.toml cannot be read as TOML" in beside


def test_an_empty_form_and_an_unknown_scope_are_told_beside_their_fields(dana: FlaskClient) -> None:
    page = preview(dana, expect=422)
    assert "Paste a config.toml or a JSON list, or choose files." in words(part(page, "pasted-help"))
    page = preview(dana, CONFIG, expect=422, scope="nowhere")
    assert "There is no group or project with this full path." in words(part(page, "scope-help"))


def test_a_confirmation_sent_twice_makes_nothing_twice_and_says_so(dana: FlaskClient, session: Session) -> None:
    page = preview(dana, CONFIG)
    confirm(dana, page)
    says = words(confirm(dana, page))
    assert "Nothing was imported" in says
    assert "this import was confirmed before, or somebody else has done it. Nothing was made twice." in says
    assert session.scalar(select(func.count(Runner.id))) == 2


def test_a_plan_that_was_changed_is_refused(dana: FlaskClient, session: Session) -> None:
    page = preview(dana, CONFIG)
    plan = hidden(page, "plan")
    forged = URLSafeTimedSerializer("another key", salt=runner_import.SALT).dumps({"by": 1, "entries": []})
    for text in (plan[:-1] + ("A" if plan[-1] != "A" else "B"), "", "nonsense", forged):
        answer = dana.post(CONFIRM, data={"csrf_token": csrf_of(page), "plan": text})
        assert answer.status_code == 409
        assert "This preview is not complete. Nothing was imported." in words(answer.get_data(as_text=True))
    assert session.scalar(select(func.count(Runner.id))) == 0


def test_a_plan_is_good_for_an_hour(dana: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = preview(dana, CONFIG)
    with monkeypatch.context() as later:
        later.setattr(runner_import, "GOOD_FOR", -1)
        assert "This preview is more than an hour old." in words(confirm(dana, page, expect=409))
    confirm(dana, page)


def test_a_plan_is_confirmed_by_who_has_seen_it(dana: FlaskClient, cast: Cast, session: Session) -> None:
    page = preview(dana, CONFIG)
    cast.person("root2", admin=True)
    session.commit()
    other = sign_in(dana.application.test_client(), "root2")
    answer = other.post(CONFIRM, data={"csrf_token": csrf_of(read(other, ADDRESS)), "plan": hidden(page, "plan")})
    assert answer.status_code == 409
    assert "This preview was made by somebody else." in words(answer.get_data(as_text=True))


def test_nobody_but_administrators_finds_the_import(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    read(client, ADDRESS, expect=404)
    csrf = csrf_of(read(client, "/"))
    for path in (ADDRESS, CONFIRM):
        assert client.post(path, data={"csrf_token": csrf, "pasted": CONFIG}).status_code == 404


def test_more_than_the_portal_takes_at_once_is_refused_as_too_large(dana: FlaskClient) -> None:
    csrf = csrf_of(read(dana, ADDRESS))
    answer = dana.post(ADDRESS, data={"csrf_token": csrf, "pasted": "x" * 1_100_000})
    assert answer.status_code == 413


def test_a_thousand_runners_are_imported_at_once(dana: FlaskClient, session: Session) -> None:
    page = preview(dana, listed(*({"token": f"{OLD}{n:04}", "description": f"machine {n}"} for n in range(1000))))
    assert "1000 runners are imported" in words(confirm(dana, page))
    assert session.scalar(select(func.count(Runner.id))) == 1000
