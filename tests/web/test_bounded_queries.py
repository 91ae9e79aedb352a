"""However much a page shows, it asks the database no more often."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.database import db, now
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.people import user_sessions
from portal.domain.runners import runner_cleanup, runners
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.scopes import INSTANCE, Scope
from portal.models import BulkAct, Role, Runner
from tests.cast import SYSTEM, Cast, sign_in
from tests.domain.queries import asked
from tests.web.reading import read

FEW, MANY = 3, 60  # rows; a page that is full shows 20 at least
MONTH = timedelta(days=30)
ROW = re.compile(r'<tr>|<li>|class="line"')
Fill = Callable[[int], None]
Addresses = dict[str, list[str]]  # of each person who looks


@pytest.fixture
def browsers(app: Flask, cast: Cast) -> dict[str, FlaskClient]:
    """Everybody of the cast who sees something, signed in."""
    return {who: sign_in(app.test_client(), who) for who in ("alice", "bob", "erin", "dana")}


def look(client: FlaskClient, address: str) -> tuple[list[str], str]:
    """What the database is asked for a page, and the page. Savepoints are those of the tests."""
    with asked(db.session()) as statements:
        page = read(client, address)
    return [each for each in statements if "SAVEPOINT" not in each], page


def rows(page: str) -> int:
    return len(ROW.findall(page))


def same_at_any_length(browsers: dict[str, FlaskClient], cast: Cast, addresses: Addresses, fill: Fill) -> None:
    """These pages ask no more often with `MANY` rows than with `FEW`, although they show more; `fill` makes a row."""
    pages = [(who, address) for who, each in addresses.items() for address in each]
    for number in range(FEW):
        fill(number)
    cast.session.commit()
    for who, address in pages:
        look(browsers[who], address)  # what is asked for once in the life of a process is known then
    few = {(who, address): look(browsers[who], address) for who, address in pages}
    for number in range(FEW, MANY):
        fill(number)
    cast.session.commit()
    for (who, address), (before, with_few) in few.items():
        statements, page = look(browsers[who], address)
        assert rows(page) >= rows(with_few) + 10, f"{address} shows {who} no more than before"
        assert len(statements) <= len(before), f"{address} for {who}: {[s for s in statements if s not in before]}"


def of_one_act(browsers: dict[str, FlaskClient], cast: Cast, make: Callable[[int], BulkAct], *, listed: bool) -> None:
    """The page of an act on `MANY` runners asks no more often than that of one on `FEW`."""
    acts = [make(number).id for number in (FEW, MANY)]
    cast.session.commit()
    read(browsers["alice"], f"/-/bulk/{acts[0]}")
    few, many = (look(browsers["alice"], f"/-/bulk/{act_id}") for act_id in acts)
    assert rows(many[1]) >= rows(few[1]) + 10 or not listed
    assert len(many[0]) <= len(few[0]), [each for each in many[0] if each not in few[0]]


def somewhere(cast: Cast, number: int) -> Scope:
    """A project of its own in acme."""
    return cast.project(f"project-{number:02}", cast.acme)


# Groups and projects


def test_the_start_page_and_the_front_page_of_a_group(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def fill(number: int) -> None:
        cast.runner(cast.project(f"below-{number:02}", cast.group(f"group-{number:02}", inside=cast.acme)))
        cast.runner(somewhere(cast, number))

    pages = ["/", "/?search=-", "/groups/acme"]
    same_at_any_length(browsers, cast, dict.fromkeys(("alice", "erin", "dana"), pages), fill)


def test_the_front_pages_where_there_are_many_runners(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def front(who: str, address: str) -> int:
        return len(look(browsers[who], address)[0])

    asked_for = [("bob", "/acme/web"), ("dana", "/acme/web"), ("alice", "/groups/acme"), ("dana", "/")]
    for _ in range(FEW):
        cast.runner(cast.web)
    for each in asked_for:
        front(*each)
    few = [front(*each) for each in asked_for]
    for _ in range(FEW, MANY):
        cast.runner(cast.web)
    assert f"<b>{MANY}</b>" in read(browsers["bob"], "/acme/web")
    assert [front(*each) for each in asked_for] == few


# Members and people


@pytest.mark.parametrize(
    ("scope", "pages"),
    [
        ("acme", {who: ["/groups/acme/-/members"] for who in ("alice", "erin", "dana")}),
        ("web", {who: ["/acme/web/-/members"] for who in ("alice", "bob", "dana")}),
        ("inherited", {who: ["/acme/web/-/members"] for who in ("alice", "bob", "dana")}),
    ],
)
def test_members_of_a_group_and_of_a_project(
    browsers: dict[str, FlaskClient], cast: Cast, scope: str, pages: Addresses
) -> None:
    def fill(number: int) -> None:
        role = (Role.GUEST, Role.DEVELOPER, Role.OWNER)[number % 3]
        cast.member(cast.person(f"person-{number:02}"), cast.web if scope == "web" else cast.acme, role)

    same_at_any_length(browsers, cast, pages, fill)


def test_people(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def fill(number: int) -> None:
        cast.member(cast.person(f"person-{number:02}"), cast.acme, Role.DEVELOPER)

    pages = ["/admin/people", "/admin/people?search=person", "/admin/people?second_factor=none"]
    same_at_any_length(browsers, cast, {"dana": pages}, fill)


def test_a_person_with_many_roles_sessions_tokens_and_keys(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def fill(number: int) -> None:
        cast.member(cast.charlie, somewhere(cast, number), Role.MAINTAINER)
        cast.access_token(cast.charlie)
        cast.enrolment_key(cast.dana, cast.web)
        user_sessions.begin(cast.session, cast.as_(cast.charlie), method="password")

    address = f"/admin/people/{cast.charlie.id}"
    same_at_any_length(browsers, cast, {"dana": [address]}, fill)


# Acts on many runners


def drafted(cast: Cast, number: int, act: Act) -> BulkAct:
    """Alice's act on so many runners, each of a project of its own."""
    chosen = {cast.runner(somewhere(cast, each + 100 * number)).runner.id for each in range(number)}
    return bulk_acts.draft(cast.session, cast.as_(cast.alice), cast.acme, Wanted(act), chosen)


def begun(cast: Cast, number: int, act: Act = Act.PAUSE) -> BulkAct:
    made = drafted(cast, number, act)
    bulk_acts.start(cast.session, cast.as_(cast.alice), made.id)
    return made


@pytest.mark.parametrize("act", [Act.PAUSE, Act.DELETE])
def test_what_an_act_on_many_runners_would_do(browsers: dict[str, FlaskClient], cast: Cast, act: Act) -> None:
    of_one_act(browsers, cast, lambda number: drafted(cast, number, act), listed=True)


def test_how_far_an_act_on_many_runners_is(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    of_one_act(browsers, cast, lambda number: begun(cast, number), listed=False)


def test_the_report_of_an_act_on_many_runners(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def deleted(number: int) -> BulkAct:
        act = begun(cast, number, Act.DELETE)
        bulk_acts.take_batch(cast.session, act.id)
        assert act.finished_at
        return act

    of_one_act(browsers, cast, deleted, listed=False)


def test_the_report_of_an_act_that_many_runners_were_refused_by(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def refused(number: int) -> BulkAct:
        act = begun(cast, number)
        for runner_id in act.runner_ids:
            runners.delete_runner(cast.session, SYSTEM, cast.session.get_one(Runner, runner_id))
        bulk_acts.take_batch(cast.session, act.id)
        assert act.refusals == number
        return act

    of_one_act(browsers, cast, refused, listed=True)


def test_the_list_of_acts_and_the_runners_below_it(browsers: dict[str, FlaskClient], cast: Cast) -> None:
    def fill(number: int) -> None:
        scope = somewhere(cast, number)
        chosen = {cast.runner(scope).runner.id}
        act = bulk_acts.draft(cast.session, cast.as_(cast.alice), scope, Wanted(Act.PAUSE), chosen)
        bulk_acts.start(cast.session, cast.as_(cast.alice), act.id)
        if number % 2:
            bulk_acts.take_batch(cast.session, act.id)

    same_at_any_length(browsers, cast, {"alice": ["/-/bulk"], "dana": ["/-/bulk"]}, fill)


# The clean-up


def test_the_clean_up_with_its_preview_its_protect_list_and_its_reports(
    browsers: dict[str, FlaskClient], cast: Cast
) -> None:
    def silent(scope: Scope) -> Runner:
        issued = cast.runner(scope)
        issued.runner.created_at = issued.record.created_at = now() - MONTH
        cast.session.flush()
        return issued.runner

    def fill(number: int) -> None:
        scope = somewhere(cast, number)
        runner_cleanup.set_protected(cast.session, SYSTEM, INSTANCE, silent(scope).id, kept=True)
        silent(scope)
        if number in (0, *range(FEW, 15)):  # the page shows ten reports
            runner_cleanup.delete_stale(cast.session, SYSTEM, cast.acme, Criteria(days=20), now())
        silent(scope)

    pages = {
        "alice": [
            "/groups/acme/-/cleanup",
            "/groups/acme/-/cleanup?days=30",
            "/groups/acme/-/cleanup/delete-now?days=30",
        ],
        "dana": ["/admin/cleanup?days=30", "/admin/cleanup/delete-now?days=30"],
    }
    same_at_any_length(browsers, cast, pages, fill)
