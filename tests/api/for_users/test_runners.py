"""`/runners/:id`: shown, changed, deleted, its machines, projects and jobs, and a new token, as GitLab does it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import Invalid
from portal.domain.runners import runner_projects, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, Role, Runner, RunnerManager, User
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.runner_attributes import DETAILS, MANAGER
from tests.api.for_users.scripts import API, Script
from tests.api.machines import Machine, info_of, through, until
from tests.api.processes import Process
from tests.api.test_any_body import anything, calm, texts
from tests.cast import TAGGED, Cast
from tests.domain.queries import asked

CHANGES = (
    "description",
    "active",
    "paused",
    "tag_list",
    "run_untagged",
    "locked",
    "access_level",
    "maximum_timeout",
    "maintenance_note",
)
EVERY = [
    ("GET", ""),
    ("PUT", ""),
    ("DELETE", ""),
    ("GET", "/managers"),
    ("GET", "/projects"),
    ("GET", "/jobs"),
    ("POST", "/reset_authentication_token"),
]
WRITING = [(method, after) for method, after in EVERY if method != "GET"]


@pytest.fixture
def runner(cast: Cast) -> Runner:
    """A runner of acme/web, which Bob maintains."""
    return cast.runner(cast.web, TAGGED).runner


def poll(app: Flask, token: str, system_id: str = "s_build01") -> None:
    machine = Machine(through(app.test_client()), token, system_id)
    assert machine.poll(info=info_of("18.6.6")).status == 204


def events(session: Session) -> list[str]:
    return list(session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)))


def sense(script: Script, method: str, path: str, body: Any, key: str | None = None) -> None:
    """Whatever a script sends is answered with something that is no failure of ours."""
    headers = {"PRIVATE-TOKEN": script.token, "Content-Type": "application/json"}
    headers |= {} if key is None else {"Idempotency-Key": key}
    sent = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = script.client.open(API + path, method=method, data=sent, headers=headers)
    assert answer.status_code in (200, 201, 204, 400, 404, 422, 429), (answer.status_code, answer.get_data())
    if answer.status_code >= 400:
        said = answer.get_json()
        assert said.get("message") or said.get("error")


# Reading


def test_the_details_have_every_attribute_that_gitlab_has(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    assert set(script_of(cast.bob).get(f"/runners/{runner.id}")) == DETAILS


def test_the_details_say_what_is_true(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    everything = RunnerSettings("Box", "Ask Bob", ("a",), False, False, True, True, 900)
    issued = cast.runner(cast.web, everything)
    runner_id = issued.runner.id
    script = script_of(cast.bob)
    new = script.get(f"/runners/{runner_id}")
    assert new["status"] == "never_contacted"
    assert (new["online"], new["contacted_at"], new["version"]) == (None, None, None)
    poll(app, issued.token)
    app.extensions["heartbeats"].take()
    shown = script.get(f"/runners/{runner_id}")
    expected = {
        "description": "Box",
        "maintenance_note": "Ask Bob",
        "ip_address": None,
        "active": True,
        "paused": False,
        "is_shared": False,
        "runner_type": "project_type",
        "name": None,
        "online": True,
        "status": "online",
        "job_execution_status": "idle",
        "tag_list": ["a"],
        "run_untagged": False,
        "locked": True,
        "maximum_timeout": 900,
        "access_level": "ref_protected",
        "version": "18.6.6",
        "platform": "linux",
        "groups": [],
    }
    assert {name: shown[name] for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown["contacted_at"])
    assert [each["path_with_namespace"] for each in shown["projects"]] == ["acme/web"]
    assert shown["created_by"]["username"] == "dana"
    assert "token" not in shown
    assert set(script.get(f"/runners/{runner_id}", include_projects="false")) == DETAILS - {"projects"}


@pytest.mark.parametrize(("method", "after"), EVERY)
def test_a_stranger_finds_no_runner_nor_does_anybody_find_one_that_is_not(
    script_of: ScriptOf, cast: Cast, runner: Runner, method: str, after: str
) -> None:
    hidden = script_of(cast.charlie).ask(method, f"/runners/{runner.id}{after}", paused=True)
    missing = script_of(cast.dana).ask(method, f"/runners/987654321{after}", paused=True)
    assert {hidden.status_code, missing.status_code} == {404}
    assert hidden.get_json() == missing.get_json() == {"message": "404 Runner Not Found"}
    assert script_of(cast.dana).ask(method, f"/runners/{10**30}{after}", paused=True).status_code == 404


@pytest.mark.parametrize(("method", "after"), EVERY)
def test_a_token_that_manages_runners_opens_all_of_it(
    script_of: ScriptOf, cast: Cast, runner: Runner, method: str, after: str
) -> None:
    answer = script_of(cast.bob, "manage_runner").ask(method, f"/runners/{runner.id}{after}", paused=True)
    assert answer.status_code in (200, 201, 204), answer.get_data()


@pytest.mark.parametrize(("method", "after"), EVERY)
def test_a_reading_token_opens_what_reads(
    script_of: ScriptOf, cast: Cast, runner: Runner, method: str, after: str
) -> None:
    answer = script_of(cast.bob, "read_api").ask(method, f"/runners/{runner.id}{after}", paused=True)
    if method == "GET":
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.get_json()["scope"]) == (403, "api manage_runner")


@pytest.mark.parametrize(("method", "after"), WRITING)
def test_who_only_sees_a_runner_changes_nothing(
    script_of: ScriptOf, cast: Cast, session: Session, method: str, after: str
) -> None:
    of_all, of_acme = cast.runner(INSTANCE).runner, cast.runner(cast.acme).runner
    before = len(events(session))
    for script, runner in ((script_of(cast.charlie), of_all), (script_of(cast.bob), of_acme)):
        answer = script.ask(method, f"/runners/{runner.id}{after}", paused=True)
        assert answer.status_code == 403
        assert answer.get_json()["message"].startswith("403 Forbidden - ")
    assert [each for each in events(session)[before:] if not each.startswith("access_token")] == ["act_refused"] * 2
    session.expire_all()
    assert not of_all.paused
    assert of_all.deletion_id is None


# Changing


def test_bob_changes_everything_and_hears_the_details(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    wanted = {
        "description": "Renamed",
        "paused": True,
        "tag_list": "a, b",
        "run_untagged": True,
        "locked": True,
        "access_level": "ref_protected",
        "maximum_timeout": 1200,
        "maintenance_note": "On holiday",
    }
    said = script_of(cast.bob).put(f"/runners/{runner.id}", **wanted)
    assert set(said) == DETAILS
    assert {name: said[name] for name in wanted} == {**wanted, "tag_list": ["a", "b"]}
    assert said["status"] == "never_contacted"
    assert script_of(cast.bob).get(f"/runners/{runner.id}") == said


@pytest.mark.parametrize(
    "wanted",
    [
        {"description": "x"},
        {"maintenance_note": "x"},
        {"tag_list": ["x"]},
        {"run_untagged": True},
        {"locked": True},
        {"access_level": "ref_protected"},
        {"maximum_timeout": 601},
        {"paused": True},
        {"active": False},
    ],
)
def test_what_is_not_given_stays(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner, wanted: dict[str, Any]
) -> None:
    script = script_of(cast.bob)
    before = script.get(f"/runners/{runner.id}")
    after = script.put(f"/runners/{runner.id}", **wanted)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == ({"active", "paused"} if wanted.keys() & {"active", "paused"} else wanted.keys())
    named = "runner_paused" if wanted.keys() & {"active", "paused"} else "runner_updated"
    assert events(session)[-1] == named


def test_null_takes_a_limit_and_texts_away_and_leaves_flags(script_of: ScriptOf, cast: Cast) -> None:
    everything = RunnerSettings("Box", "Ask Bob", ("a",), True, True, True, True, 900)
    runner_id = cast.runner(cast.web, everything).runner.id
    names = [name for name in CHANGES if name != "active"]
    said = script_of(cast.bob).put(f"/runners/{runner_id}", **dict.fromkeys(names))
    assert (said["description"], said["maintenance_note"], said["tag_list"]) == ("", "", [])
    assert said["maximum_timeout"] is None
    assert (said["paused"], said["locked"], said["run_untagged"]) == (True, True, True)
    assert said["access_level"] == "ref_protected"


def test_the_same_again_changes_nothing_and_stands_on_no_trail(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    script = script_of(cast.bob)
    script.put(f"/runners/{runner.id}", paused=True)
    before = events(session)
    script.put(f"/runners/{runner.id}", paused=True)
    assert events(session) == before


def test_one_of_them_is_needed_and_the_two_words_for_pausing_exclude_each_other(
    script_of: ScriptOf, cast: Cast, runner: Runner
) -> None:
    script = script_of(cast.bob)
    nothing = script.put(f"/runners/{runner.id}", expect=400, token="x")
    assert nothing["error"].endswith("at least one parameter must be provided")
    assert all(name in nothing["error"] for name in CHANGES)
    both = script.put(f"/runners/{runner.id}", expect=400, active=True, paused=False)
    assert both == {"error": "active, paused are mutually exclusive"}


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        (
            {"tag_list": [], "run_untagged": False},
            "tags_list",
            "can not be empty when runner is not allowed to pick untagged jobs",
        ),
        (
            {"tag_list": [f"t{n}" for n in range(51)]},
            "tags_list",
            "Too many tags specified. Please limit the number of tags to 50",
        ),
        ({"maximum_timeout": 599}, "maximum_timeout", "needs to be at least 10 minutes"),
        ({"description": "x" * 1025}, "description", "is too long (maximum is 1024 characters)"),
        ({"maintenance_note": "x" * 1025}, "maintenance_note", "is too long (maximum is 1024 characters)"),
    ],
)
def test_values_that_cannot_be_taken_are_told_as_gitlabs_hash(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner, wanted: dict[str, Any], field: str, said: str
) -> None:
    answer = script_of(cast.bob).put(f"/runners/{runner.id}", expect=400, **wanted)
    assert answer == {"message": {field: [said]}}
    session.expire_all()
    assert runner.description == TAGGED.description


def test_two_changes_at_once_are_checked_one_after_the_other(process: Process) -> None:
    """Each of them alone would do; together the runner could take no job, and the second one hears so."""
    with process.session() as ours, process.session() as theirs:
        cast = Cast(ours)
        runner = cast.runner(cast.web, RunnerSettings(tags=("a",), run_untagged=True)).runner
        bob, same = cast.as_(cast.bob), theirs.get_one(Runner, runner.id)
        assert runner.tag_list == same.tag_list == ["a"]
        runners.change_settings(theirs, cast.as_(theirs.get_one(User, cast.bob.id)), same, tags=(), description="Box")
        theirs.commit()
        with pytest.raises(Invalid):
            runners.change_settings(ours, bob, runner, run_untagged=False)
        assert runners.change_settings(ours, bob, runner, paused=True)
        ours.commit()
        assert (runner.description, runner.tag_list, runner.paused) == ("Box", [], True)


# Deleting


def test_bob_deletes_his_runner_and_its_machines_are_refused(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    runner_id = issued.runner.id
    script = script_of(cast.bob)
    assert script.delete(f"/runners/{runner_id}") is None
    script.get(f"/runners/{runner_id}", expect=404)
    script.delete(f"/runners/{runner_id}", expect=404)
    assert Machine(through(app.test_client()), issued.token).verify().status == 403


def test_a_runner_of_several_projects_is_deleted_by_administrators_only(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    api = cast.project("api", cast.acme)
    runner_projects.assign(session, cast.as_(cast.dana), runner, api)
    cast.member(cast.bob, api, Role.GUEST)
    session.commit()
    said = script_of(cast.bob).delete(f"/runners/{runner.id}", expect=403)["message"]
    assert said.startswith("403 Forbidden - Runner associated with more than one project")
    assert "acme/api" in said
    script_of(cast.dana).delete(f"/runners/{runner.id}")


def test_a_runner_that_was_changed_since_is_not_deleted(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    script, path = script_of(cast.bob), f"/runners/{runner.id}"
    before = format_datetime(now() - timedelta(hours=1), usegmt=True)
    refused = script.ask("DELETE", path, headers={"If-Unmodified-Since": before})
    assert refused.status_code == 412
    assert refused.get_json()["message"].startswith("412 Precondition Failed - ")
    since = format_datetime(runner.updated_at.replace(microsecond=0), usegmt=True)
    assert script.ask("DELETE", path, headers={"If-Unmodified-Since": since}).status_code == 204


def test_a_date_that_is_none_is_passed_over(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    answer = script_of(cast.bob).ask("DELETE", f"/runners/{runner.id}", headers={"If-Unmodified-Since": "soon"})
    assert answer.status_code == 204


# Machines, projects, jobs


def test_the_machines_of_a_runner_have_gitlabs_attributes(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    poll(app, issued.token)
    (shown,) = script_of(cast.bob).get(f"/runners/{issued.runner.id}/managers")
    assert set(shown) == MANAGER
    assert (shown["system_id"], shown["version"], shown["ip_address"]) == ("s_build01", "18.6.6", "127.0.0.1")
    assert (shown["status"], shown["job_execution_status"]) == ("online", "idle")


def test_addresses_of_machines_are_told_to_who_looks_after_them(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    issued = cast.runner(INSTANCE)
    poll(app, issued.token)
    path = f"/runners/{issued.runner.id}/managers"
    assert script_of(cast.charlie).get(path)[0]["ip_address"] is None
    assert script_of(cast.dana).get(path)[0]["ip_address"] == "127.0.0.1"


def test_all_machines_come_at_once_and_with_few_queries(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    session.add_all(RunnerManager(runner_id=runner.id, system_xid=f"s_{n}") for n in range(150))
    session.commit()
    script = script_of(cast.bob)
    with asked(session) as statements:
        answer = script.ask("GET", f"/runners/{runner.id}/managers", per_page=5)
    assert len(answer.get_json()) == 150
    assert "X-Total" not in answer.headers
    assert len(statements) < 15


def test_the_projects_are_those_that_one_may_see_the_owner_first(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    for name in ("zeta", "api"):
        runner_projects.assign(session, cast.as_(cast.dana), runner, cast.project(name, cast.acme))
    secret = cast.project("secret", cast.other)
    cast.member(cast.charlie, secret, Role.MAINTAINER)
    runner_projects.assign(session, cast.as_(cast.dana), runner, secret)
    session.commit()

    def paths(script: Script, **given: Any) -> list[str]:
        return [each["path_with_namespace"] for each in script.get(f"/runners/{runner.id}/projects", **given)]

    assert paths(script_of(cast.dana)) == ["acme/web", "acme/zeta", "acme/api", "other/secret"]
    assert paths(script_of(cast.alice)) == ["acme/web", "acme/zeta", "acme/api"]
    assert paths(script_of(cast.charlie)) == ["other/secret"]
    assert paths(script_of(cast.dana), per_page=3, page=2) == ["other/secret"]
    answer = script_of(cast.alice).ask("GET", f"/runners/{runner.id}/projects", per_page=2)
    assert (answer.headers["X-Total"], answer.headers["X-Next-Page"]) == ("3", "2")
    assert set(answer.get_json()[0]) == {
        "id",
        "name",
        "name_with_namespace",
        "path",
        "path_with_namespace",
        "description",
        "created_at",
    }
    assert paths(script_of(cast.dana), page=2) == []
    group_runner = cast.runner(cast.acme).runner
    assert script_of(cast.alice).get(f"/runners/{group_runner.id}/projects") == []


def test_projects_have_the_names_of_those_groups_that_one_may_see(
    script_of: ScriptOf, cast: Cast, runner: Runner
) -> None:
    for user, name in ((cast.alice, "Acme / Web"), (cast.bob, "acme / Web"), (cast.dana, "Acme / Web")):
        script, path = script_of(user), f"/runners/{runner.id}"
        shown = [*script.get(path)["projects"], *script.get(f"{path}/projects"), script.get("/projects/acme%2Fweb")]
        assert [each["name_with_namespace"] for each in shown] == [name] * 3


def test_a_page_of_projects_takes_few_queries(
    script_of: ScriptOf, cast: Cast, session: Session, runner: Runner
) -> None:
    for n in range(30):
        runner_projects.assign(session, cast.as_(cast.dana), runner, cast.project(f"p{n}", cast.acme))
    session.commit()
    script = script_of(cast.alice)
    with asked(session) as statements:
        assert len(script.get(f"/runners/{runner.id}/projects", per_page=100)) == 31
    assert len(statements) < 15


def test_a_runner_that_ran_nothing_has_no_jobs_either_way(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    script, path = script_of(cast.bob), f"/runners/{runner.id}/jobs"
    numbered = script.ask("GET", path, status="running", sort="asc", order_by="id")
    assert (numbered.get_json(), numbered.headers["X-Total"]) == ([], "0")
    keyset = script.ask("GET", path, pagination="keyset", per_page=5)
    assert keyset.get_json() == []
    assert not {"X-Total", "Link"} & set(keyset.headers.keys())
    assert "X-Total" not in script.ask("GET", path, system_id="s_1").headers
    for wrong in ({"status": "busy"}, {"sort": "up"}, {"order_by": "name"}, {"pagination": "x"}, {"page": 0}):
        assert "does not have a valid value" in script.get(path, expect=400, **wrong)["error"]


# A new token


def test_a_reset_is_a_clean_cut(app: Flask, script_of: ScriptOf, cast: Cast, session: Session) -> None:
    issued = cast.runner(cast.web)
    poll(app, issued.token)
    answer = script_of(cast.bob).ask("POST", f"/runners/{issued.runner.id}/reset_authentication_token")
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    new = answer.get_json()
    assert set(new) == {"token", "token_expires_at"}
    assert new["token"].startswith("glrt-t3_")
    app.extensions["known_runners"].forget_all(listening=False)
    assert Machine(through(app.test_client()), issued.token).verify().status == 403
    assert Machine(through(app.test_client()), new["token"]).verify().status == 200
    assert events(session)[-1] == "runner_token_reset"


# Several processes


def test_a_change_by_script_is_heard_by_every_process_within_a_second(own_database: str) -> None:
    with Process(own_database) as here, Process(own_database) as there:
        with here.session() as session:
            cast = Cast(session)
            issued, script = cast.runner(), Script(here.app.test_client(), cast.access_token(cast.alice))
            path = f"/runners/{issued.runner.id}"
        machines = [each.machine(issued.token) for each in (here, there)]
        before = {machine.poll().headers["X-GitLab-Last-Update"] for machine in machines * 2}
        with there.statements() as statements:
            assert machines[1].poll().status == 204
        assert statements == []  # it answers from memory

        def heard(by: Callable[[Machine], bool], why: str) -> None:
            for machine in machines:
                until(lambda each=machine: by(each), seconds=1, why=why)

        script.put(path, paused=True)
        heard(lambda machine: machine.poll().headers["X-GitLab-Last-Update"] not in before, "the pause")
        token = script.post(f"{path}/reset_authentication_token")["token"]
        heard(lambda machine: machine.poll().status == 403, "the reset")
        for machine in machines:
            machine.token = token
            assert machine.poll().status == 204
        script.delete(path)
        heard(lambda machine: machine.poll().status == 403, "the deletion")


@calm
@given(
    body=st.fixed_dictionaries({}, optional=dict.fromkeys(CHANGES, anything | texts)) | anything,
    method=st.sampled_from(["PUT", "PUT", "POST"]),
)
def test_whatever_is_sent_to_a_runner_is_answered_with_sense(
    danas: Script, runner: Runner, body: Any, method: str
) -> None:
    after = "/reset_authentication_token" if method == "POST" else ""
    sense(danas, method, f"/runners/{runner.id}{after}", body)
