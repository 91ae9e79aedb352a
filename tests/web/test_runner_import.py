"""Importing runners in the browser: preview, confirmation, report; then machines only change their URL."""

import io
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.models import InstanceSettings, Runner
from portal.web import runner_import
from tests.cast import Cast, csrf_of, hidden, sign_in
from tests.domain.imports.test_runner_import import BARE, CONFIG, CREATED, DASHES, OLD
from tests.domain.test_audit import every_row
from tests.web.reading import INFO, fill, links, part, poll, read, verify, words

ADDRESS, CONFIRM = "/admin/import", "/admin/import/confirm"
ALL = (OLD, CREATED, DASHES, BARE)


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


def listed(*entries: dict[str, object]) -> str:
    return json.dumps(entries)


def preview(client: FlaskClient, pasted: str = "", expect: int = 200, **fields: Any) -> str:
    answer = fill(
        client, ADDRESS, expect=expect, **{"pasted": pasted, "run_untagged": "y", "scope": "instance", **fields}
    )
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
    cookie = dana.get_cookie("__Host-portal_session")
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
    # Not the last letter: some of its bits stand for nothing in base64, so that four letters mean the same.
    changed = plan[:-5] + ("A" if plan[-5] != "A" else "B") + plan[-4:]
    for text in (changed, "", "nonsense", forged):
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


# Where the runners go


def test_a_form_that_says_no_scope_imports_nothing(dana: FlaskClient, session: Session) -> None:
    for scope in ("", " / "):
        page = preview(dana, CONFIG, expect=422, scope=scope)
        assert "Say where these runners belong: write the full path of a group or project, or the word instance" in (
            words(part(page, "scope-help"))
        )
        assert 'name="plan"' not in page


def test_no_scope_is_needed_when_every_runner_says_its_own(dana: FlaskClient) -> None:
    page = preview(dana, listed({"token": BARE, "scope": "acme"}, {"token": OLD, "scope": "acme/web"}), scope="")
    assert "2 runners would be imported" in words(page)
    preview(dana, listed({"token": BARE, "scope": "acme"}, {"token": OLD, "scope": ""}), scope="", expect=422)


def test_the_preview_says_that_instance_runners_take_everybodys_jobs(dana: FlaskClient) -> None:
    says = words(preview(dana, listed({"token": BARE, "scope": "acme"}, {"token": OLD}), scope="Instance"))
    assert "1 of them would be an instance runner , which takes jobs of every project of this portal." in says
    assert says.count("the instance: takes jobs of every project") == 1
    says = words(preview(dana, CONFIG, scope="instance"))
    assert "2 of them would be instance runners , which take jobs of every project of this portal." in says
    assert "jobs of every project" not in words(preview(dana, CONFIG, scope="acme"))


def test_the_two_ways_in_are_not_called_optional(dana: FlaskClient) -> None:
    page = read(dana, ADDRESS)
    for label in ("pasted", "files", "scope"):
        assert "optional" not in part(page, label)[: part(page, label).index("</div>")]
        assert "optional" not in page[page.index(f'<label for="{label}">') :].split("</label>")[0]


# What the preview warns of


def test_a_name_that_means_nothing_here_is_told_in_the_preview_and_its_value_is_not(dana: FlaskClient) -> None:
    page = preview(
        dana,
        listed(
            {"token": OLD, "scope": "acme", "tags": ["of-the-fleet"], "ip_address": "192.0.2.77", CREATED: "of-whom"}
        ),
    )
    says = words(page)
    assert (
        "Left out, because nothing here is called so: tags (it is called tag_list here), ip_address, a name that is "
        "not shown here." in says
    )
    for value in ("of-the-fleet", "192.0.2.77", "of-whom", secret_of(CREATED)):
        assert value not in page


def test_a_runner_without_tags_is_told_that_they_were_written_under_another_name(dana: FlaskClient) -> None:
    page = preview(dana, listed({"token": OLD, "tags": ["a"], "run_untagged": False}))
    says = words(part(page, "skipped"))
    assert "Add at least one tag" in says
    assert "tags (it is called tag_list here)." in says


def test_a_life_of_the_scope_that_an_imported_token_outlives_is_told(dana: FlaskClient, session: Session) -> None:
    session.add(InstanceSettings(group_runner_token_expiration_interval=30 * 86_400))
    session.commit()
    soon, late = ((now() + timedelta(days=days)).isoformat() for days in (29, 31))
    page = preview(
        dana,
        listed(
            {"token": OLD, "description": "Endless", "scope": "acme"},
            {"token": CREATED, "description": "Long", "scope": "acme", "token_expires_at": late},
            {"token": DASHES, "description": "Short", "scope": "acme", "token_expires_at": soon},
            {"token": BARE, "description": "Elsewhere"},
        ),
    )
    endless, long, short, elsewhere = words(part(page, "planned")).split("What you pasted, runner ")[1:]
    said = "Tokens made there live 30 days, because the instance says so; this one"
    assert f"{said} does not expire, and stays so until it is reset." in endless
    assert f"{said} lives longer, and stays so until it is reset." in long
    assert said not in short + elsewhere


# What is left afterwards


def test_the_report_repeats_what_the_preview_has_skipped(dana: FlaskClient, cast: Cast, session: Session) -> None:
    known = cast.runner(cast.web)
    page = preview(dana, listed({"token": OLD}, {"token": known.token}, {"token": ""}, {"token": BARE}))
    confirm(dana, preview(dana, listed({"token": BARE, "description": "Meanwhile"})))
    page = confirm(dana, page)
    says = words(part(page, "skipped"))
    assert "Skipped: 3" in says
    assert "runner 2 Its token is known here already. It belongs to Linux build fleet ." in says
    assert "runner 3 It has no token." in says
    assert "runner 4 Its token is known here already. It belongs to Meanwhile ." in says
    assert known.record.short in says
    assert f"/acme/web/-/runners/{known.runner.id}" in links(page)


def test_a_runner_that_was_named_in_the_preview_and_is_gone_is_not_named_again(
    dana: FlaskClient, cast: Cast, session: Session
) -> None:
    known = cast.runner()
    page = preview(dana, listed({"token": OLD}, {"token": known.token}))
    session.delete(known.runner)
    session.commit()
    says = words(part(confirm(dana, page), "skipped"))
    assert "runner 2 Its token is known here already." in says
    assert "It belongs to" not in says


def test_the_way_on_leads_to_where_all_of_them_went(dana: FlaskClient) -> None:
    page = confirm(dana, preview(dana, CONFIG, scope="acme/web"))
    assert "See the runners of acme/web" in words(page)
    assert "/acme/web/-/runners" in links(page)
    page = confirm(dana, preview(dana, listed({"token": BARE, "scope": "acme"}, {"token": DASHES})))
    assert "See the runners Import more" in words(page)


@pytest.mark.parametrize("pasted", [CREATED, OLD, f'"{CREATED}"', f"{CREATED}\n{BARE}\n", "GR1348941abcdefghij"])
def test_a_token_alone_is_told_how_to_write_it_and_where_to_look_it_up(dana: FlaskClient, pasted: str) -> None:
    page = preview(dana, pasted, expect=422, scope="acme")
    beside = part(page, "pasted-help").split("</div>")[0]
    assert 'Write it as a JSON list, such as [{"token": "glrt-…", "scope": "acme"}].' in words(beside)
    assert "/admin/token-lookup" in links(beside)
    assert secret_of(CREATED) not in page
