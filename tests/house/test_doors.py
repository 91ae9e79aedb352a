"""The doors: every blueprint is guarded, addresses are regular, no GET changes anything, no page POST is forged."""

import re
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, text
from sqlalchemy.exc import InternalError
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

from portal import create_app
from tests.cast import Cast, sign_in
from tests.databases import settings
from tests.domain.queries import asked

APP = create_app(settings("postgresql://nobody@localhost/nothing"))  # for its addresses only; never asked
RULES = [rule for rule in APP.url_map.iter_rules() if rule.endpoint != "static"]
GETS = [rule for rule in RULES if "GET" in rule.methods]
PAGES = [rule for rule in GETS if not rule.rule.startswith("/api/")]
API_GETS = [rule for rule in GETS if rule.rule.startswith("/api/")]
PAGE_POSTS = [rule for rule in RULES if "POST" in rule.methods and not rule.rule.startswith("/api/")]
GUARDS = {"public", "signed_in", "authenticated"}
TYPED = re.compile(r"<(int|path|project):[a-z_]+>")
SEGMENT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*|-")
SNAKE_BY_GITLAB = {
    "openapi.json",
    "reset_authentication_token",
    "reset_registration_token",
    "personal_access_tokens",
    "descendant_groups",
    "enrolment_keys",  # ours, among the others
    "job_templates",  # the same
    "matching_runners",  # the same
    "pending_jobs",  # the same
}  # addresses that clients have in their code
# GETs that sign somebody in because the protocol says so: the provider sends the browser there. They do it only for a
# browser that has started a sign-in itself, by a form, and only once; without that they write nothing: shown below.
BY_PROTOCOL = {"openid.callback"}
# Opened by the token of a job, which machines have; a person's session is none.
BY_JOB_TOKEN = {"runner_api.download_artifacts"}
PUBLIC_API = {"api_description.document", "graphql.answer"}  # answers that tell nothing of anybody's
WRITES = re.compile(
    r"^\s*(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CREATE|DROP|ALTER)\b|pg_notify|FOR (UPDATE|SHARE)"
    r"|^\s*WITH\b.*\b(INSERT\s+INTO|UPDATE\s+\w+\s.*\bSET|DELETE\s+FROM|MERGE\s+INTO)\b",
    re.I | re.S,
)


def text_of(rule: Rule) -> str:
    return f"{rule.endpoint} {rule.rule}"


def address(app: Flask, rule: Rule, places: dict[str, Any]) -> str:
    with app.test_request_context():
        adapter = app.create_url_adapter(None) or app.url_map.bind("portal.example.com")
        return adapter.build(
            rule.endpoint,
            {name: places[name] for name in rule.arguments},
            method="POST" if "GET" not in rule.methods else "GET",
            force_external=False,
        )


def test_every_blueprint_has_a_guard_by_name() -> None:
    guarded = {name: {guard.__name__ for guard in APP.before_request_funcs.get(name, ())} for name in APP.blueprints}
    assert {name for name, guards in guarded.items() if not guards & GUARDS} == set()


def test_the_only_open_doors_are_these() -> None:
    open_ = {
        name
        for name in APP.blueprints
        if "public" in {guard.__name__ for guard in APP.before_request_funcs.get(name, ())}
    }
    assert open_ == {"health", "runner_api", "api_description", "graphql", "sessions", "second_proof", "openid"}


def test_every_address_belongs_to_a_blueprint() -> None:
    assert {rule.endpoint for rule in RULES if "." not in rule.endpoint} == set()


@pytest.mark.parametrize("rule", RULES, ids=text_of)
def test_an_address_has_typed_places_and_words_joined_by_hyphens(rule: Rule) -> None:
    for segment in rule.rule.strip("/").split("/"):
        if "<" in segment:
            assert TYPED.fullmatch(segment)
        elif segment and segment not in SNAKE_BY_GITLAB:
            assert SEGMENT.fullmatch(segment)
    assert rule.rule == "/" or not rule.rule.endswith("/")


def test_a_group_and_a_project_have_the_same_pages() -> None:
    """A page that one kind of scope has and the other lacks is there on purpose."""

    def pages(kind: str) -> set[str]:
        return {each.endpoint.removeprefix(f"{kind}_") for each in RULES if each.endpoint.startswith(f"{kind}_")}

    for_groups_only = {"front.new_group", "front.new_project", "runner_settings.creation", "runner_settings.limits"}
    more_than_a_project = {page for page in pages("group") - pages("project") if not page.startswith("cleanup.")}
    assert more_than_a_project == for_groups_only
    jobs_are_of_projects = {"jobs", "job_settings", "which_runners"}
    assert {page.split(".")[0] for page in pages("project") - pages("group")} == jobs_are_of_projects


@pytest.mark.parametrize("rule", GETS, ids=text_of)
def test_no_get_changes_anything(app: Flask, session: Session, places: dict[str, Any], rule: Rule) -> None:
    client = app.test_client()
    if rule.endpoint != "sessions.sign_in":
        sign_in(client, "dana")
    read_only(session)
    with asked(session) as statements:
        answer = client.get(address(app, rule, places))
    answer.close()  # left open, it would close the next test's database session whenever it is collected
    assert answer.status_code in (200, 204) or rule.endpoint in (
        "runner_links.show",
        "job_links.show",
        "user_api.access_tokens_show_self",  # of the token that asks; a browser shows none
        "second_proof.show",  # only somebody in the middle of a sign-in sees it
        *BY_PROTOCOL,
        *BY_JOB_TOKEN,
    )
    assert [each for each in statements if WRITES.search(each)] == []


@pytest.mark.parametrize("rule", API_GETS, ids=text_of)
def test_no_get_of_a_script_changes_anything(app: Flask, places: dict[str, Any], cast: Cast, rule: Rule) -> None:
    tokens = [cast.access_token(cast.dana), cast.access_token(cast.charlie), places["enrolment key"], "glpat-nobodys"]
    read_only(cast.session)
    for token in tokens:
        headers = {"PRIVATE-TOKEN": token}
        with asked(cast.session) as statements:
            answer = app.test_client().get(address(app, rule, places), headers=headers)
        assert answer.status_code < 500
        assert [each for each in statements if WRITES.search(each)] == []


def read_only(session: Session) -> None:
    """From here on the database refuses every write, until the test forgets its transaction."""
    session.commit()
    connection = session.get_bind()
    assert isinstance(connection, Connection)
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")  # outside of any savepoint, whose end would undo it


def test_a_write_in_a_read_only_transaction_is_refused(session: Session, cast: Cast) -> None:
    read_only(session)
    with pytest.raises(InternalError, match="read-only"):
        session.execute(text("DELETE FROM members"))
    session.rollback()


def test_a_statement_that_writes_is_recognised() -> None:
    beats = "\nWITH beats AS (SELECT 1)\n"
    writing = ["INSERT INTO users", "update users", "SELECT pg_notify('a')", "SELECT 1 FOR UPDATE"]
    within = ["UPDATE users u SET x = 1", "INSERT INTO users", "DELETE FROM users", "merge into users"]
    assert all(WRITES.search(each) for each in [*writing, *(beats + each for each in within)])
    assert not WRITES.search("SELECT users.updated_at, users.with_x FROM users")
    assert not WRITES.search("WITH beats AS (SELECT 1) SELECT updated_at FROM beats")


@pytest.mark.parametrize("rule", PAGE_POSTS, ids=text_of)
def test_no_page_takes_a_post_without_its_csrf_token(
    app: Flask, session: Session, places: dict[str, Any], rule: Rule
) -> None:
    client = sign_in(app.test_client(), "dana")
    with asked(session) as statements:
        answer = client.post(address(app, rule, places), data={"csrf_token": "forged", "typed": "acme"})
    assert answer.status_code == 400
    assert "form" in answer.get_data(as_text=True)
    assert [each for each in statements if WRITES.search(each)] == []


@pytest.mark.parametrize("rule", API_GETS, ids=text_of)
def test_a_script_of_nobodys_is_asked_for_a_token(app: Flask, places: dict[str, Any], rule: Rule) -> None:
    if rule.endpoint in PUBLIC_API:
        return
    answer = app.test_client().get(address(app, rule, places))
    assert answer.status_code == 401
    assert answer.get_json()["message"].startswith("401 Unauthorized")


@pytest.mark.parametrize("rule", PAGES, ids=text_of)
def test_a_page_of_somebodys_asks_a_visitor_to_sign_in(app: Flask, places: dict[str, Any], rule: Rule) -> None:
    if rule.endpoint.split(".")[0] in ("health", "sessions", "openid"):
        return
    answer = app.test_client().get(address(app, rule, places))
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/-/sign-in")


@pytest.mark.parametrize("rule", API_GETS, ids=text_of)
def test_a_strangers_script_finds_nothing_that_has_a_place(app: Flask, places: dict[str, Any], rule: Rule) -> None:
    if not rule.arguments:
        return
    answer = sign_in(app.test_client(), "charlie").get(address(app, rule, places))
    assert answer.status_code == (401 if rule.endpoint in BY_JOB_TOKEN else 404)


@pytest.mark.parametrize("rule", PAGES, ids=text_of)
def test_a_stranger_finds_nothing_behind_any_scope(app: Flask, places: dict[str, Any], rule: Rule) -> None:
    if rule.endpoint.split(".")[0] in ("health", "sessions", "openid", "start", "account", "identities"):
        return
    if rule.endpoint.split(".")[0] in ("second_proof", "second_factor", "confirmations", "api_reference", "graphiql"):
        return
    if rule.endpoint in ("access_tokens.index", "access_tokens.new"):  # one's own
        return
    if rule.endpoint in ("deletions.index", "bulk_acts.index"):  # empty lists: what a stranger may restore, or did
        return
    answer = sign_in(app.test_client(), "charlie").get(address(app, rule, places))
    assert answer.status_code == 404
