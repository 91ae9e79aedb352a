"""Who may do what with runners and registration tokens: the whole table again, through REST and GraphQL.

What a script hears is what the pages' table says (tests/permission_table.py), whatever the door. One thing is read
wider than on the pages of a scope: instance runners by everybody who has a token (reference/rest.md section 3).
"""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.domain.people import people
from portal.domain.runners import runner_projects
from portal.models import Role
from tests.api.for_users.scripts import Script
from tests.api.graphql.queries import Asker
from tests.cast import SYSTEM, Cast
from tests.permission_table import ACTORS, KINDS, SEES, Stage, cell, set_stage

everybody = pytest.mark.parametrize("name", ACTORS)
everywhere = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def session(session_beside: Session) -> Session:
    return session_beside


@pytest.fixture
def stage(session: Session, cast: Cast) -> Stage:
    return set_stage(session, cast)


def sees(name: str, kind: str) -> bool:
    """Whether the actor sees the scope; the instance itself is everybody's to know of."""
    return kind in SEES.get(name, ("group", "project"))


def reads(name: str, kind: str) -> bool:
    """Whether the actor reads the scope's runner by its number."""
    return kind == "instance" or bool(set(cell(name, kind)) & set("rR"))


# REST

Call = tuple[str, str, dict[str, Any]]
ON_RUNNERS: dict[str, list[Call]] = {
    "R": [
        ("GET", "/runners/{id}", {}),
        ("GET", "/runners/{id}/managers", {}),
        ("GET", "/runners/{id}/jobs", {}),
        ("GET", "/runners/{id}/pending_jobs", {}),
        ("GET", "/runners/{id}/projects", {}),
    ],
    "U": [
        ("PUT", "/runners/{id}", {"description": "Changed by a script"}),
        ("PUT", "/runners/{id}", {"paused": True}),
        ("POST", "/runners/{id}/reset_authentication_token", {}),
    ],
    "D": [("DELETE", "/runners/{id}", {})],
}
ROOTS = {"instance": "", "group": "/groups/acme", "project": "/projects/acme%2Fweb"}
CREATED, DONE = (200, 201, 202, 204), (200, 201, 202, 204)


def script_of(app: Flask, cast: Cast, stage: Stage, name: str, *scopes: str) -> Script:
    return Script(app.test_client(), cast.access_token(stage.people[name], *scopes))


def new_runner(stage: Stage, kind: str) -> dict[str, Any]:
    """What a script sends to create a runner in the scope."""
    owner = {} if kind == "instance" else {f"{kind}_id": stage.scopes[kind].id}
    return {"runner_type": f"{kind}_type", "tag_list": "docker", **owner}


@everybody
@everywhere
def test_rest_lets_read_change_and_delete_runners_those_in_the_table(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    script = script_of(app, cast, stage, name)
    for letter, calls in ON_RUNNERS.items():
        for method, path, given in calls:
            answer = script.ask(method, path.format(id=stage.runners[kind]), **given)
            able = reads(name, kind) if letter == "R" else letter in cell(name, kind)
            expect = DONE if able else (403,) if reads(name, kind) else (404,)
            assert answer.status_code in expect, (method, path, answer.status_code)


@everybody
@everywhere
@pytest.mark.parametrize("path", ["/user/runners", "/runners"])
def test_rest_lets_create_runners_those_in_the_table(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str, path: str
) -> None:
    answer = script_of(app, cast, stage, name, "create_runner").ask("POST", path, **new_runner(stage, kind))
    able, known = "C" in cell(name, kind), sees(name, kind) or kind == "instance"
    assert answer.status_code in ((201,) if able else (403,) if known else (404,))


@everybody
@everywhere
def test_rest_lets_reset_registration_tokens_and_turn_them_off_those_in_the_table(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    script, root = script_of(app, cast, stage, name), ROOTS[kind]
    missing = (404,) if kind != "instance" and not sees(name, kind) else (403,)
    answer = script.ask("POST", f"{root}/runners/reset_registration_token")
    assert answer.status_code in ((201,) if "T" in cell(name, kind) else missing)
    for letter, given in (
        ("L", {"runner_token_expiration_interval": 86_400}),
        ("S", {"allow_runner_registration_token": False}),
        ("S", {"allow_runner_registration_token": True}),
    ):
        answer = script.ask("PUT", root or "/application/settings", **given)
        assert answer.status_code in ((200,) if letter in cell(name, kind) else missing), given


@everybody
@everywhere
def test_rest_lets_settle_clean_up_and_limits_those_in_the_table(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    if kind == "project":  # which has neither
        return
    script, root = script_of(app, cast, stage, name), ROOTS[kind] or "/application/settings"
    missing = (404,) if kind != "instance" and not sees(name, kind) else (403,)
    administrates = "A" in cell(name, kind)
    of_all = {"runner_registration_enabled": False} if kind == "group" else {"valid_runner_registrars": ["group"]}
    for able, given in (
        ("K" in cell(name, kind), {"stale_runner_cleanup_days": 30}),
        (administrates, {"ci_registered_group_runners": 7}),
        (administrates, of_all),
    ):
        assert script.ask("PUT", root, **given).status_code in ((200,) if able else missing), given


@everybody
@everywhere
def test_rest_lists_the_runners_of_a_scope_for_those_in_the_table(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    script = script_of(app, cast, stage, name)
    answer = script.ask("GET", f"{ROOTS[kind]}/runners" if kind != "instance" else "/runners/all")
    readable = "R" in cell(name, kind)
    missing = (404,) if kind != "instance" and not sees(name, kind) else (403,)
    assert answer.status_code in ((200,) if readable else missing)
    if readable:
        assert stage.runners[kind] in {each["id"] for each in answer.get_json()}
    mine = {each["id"] for each in script.get("/runners")}
    # `GET /runners` lists runners of groups and projects only, as in GitLab.
    assert (stage.runners[kind] in mine) is ("U" in cell(name, kind) and kind != "instance")


@everybody
def test_rest_lets_assign_a_projects_runner_those_who_change_it(
    app: Flask, session: Session, cast: Cast, stage: Stage, name: str
) -> None:
    api = cast.project("api", cast.acme)
    for each in ("project owner", "project maintainer"):
        cast.member(stage.people[each], api, Role.MAINTAINER)
    session.commit()
    script, able = script_of(app, cast, stage, name), "U" in cell(name, "project")
    answer = script.ask("POST", f"/projects/{api.id}/runners", runner_id=stage.runners["project"])
    assert answer.status_code in ((201,) if able else (403, 404))
    if not able:
        runner_projects.assign(session, SYSTEM, stage.runner("project"), api)
        session.commit()
    answer = script.ask("DELETE", f"/projects/{api.id}/runners/{stage.runners['project']}")
    assert answer.status_code in ((204,) if able else (403, 404))


@everybody
@everywhere
def test_a_token_that_only_reads_changes_nothing_whosever_it_is(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    for scope in ("read_api", "create_runner"):
        script = script_of(app, cast, stage, name, scope)
        for letter in "UD":
            for method, path, given in ON_RUNNERS[letter]:
                answer = script.ask(method, path.format(id=stage.runners[kind]), **given)
                assert (answer.status_code, answer.get_json()["error"]) == (403, "insufficient_scope")
    stage.session.expire_all()
    assert not stage.runner(kind).paused


@everybody
def test_a_blocked_persons_script_is_nobodys(
    app: Flask, session: Session, cast: Cast, stage: Stage, name: str
) -> None:
    script = script_of(app, cast, stage, name)
    person = session.merge(stage.people[name])
    if name == "administrator":
        people.set_administrator(session, SYSTEM, session.merge(cast.alice), True)  # somebody has to be one
    people.block(session, SYSTEM, person)
    session.commit()
    for method, path, given in (each for calls in ON_RUNNERS.values() for each in calls):
        assert script.ask(method, path.format(id=stage.runners["group"]), **given).status_code == 401


@everybody
def test_rest_shows_jobs_to_reporters_and_lets_run_them_developers_and_protected_ones_maintainers(
    app: Flask, cast: Cast, stage: Stage, name: str
) -> None:
    script, jobs = script_of(app, cast, stage, name), f"{ROOTS['project']}/jobs"
    sees = name not in ("guest", "stranger")
    runs = sees and name != "reporter"
    maintains = runs and name != "developer"
    missing = (403,) if name != "stranger" else (404,)
    waiting, protected = cast.job(), cast.job(ref="v1", protected=True)
    new = {"name": "build", "script": "make"}
    templates = f"{ROOTS['project']}/job_templates"
    for able, method, path, given in (
        (sees, "GET", jobs, {}),
        (sees, "GET", f"{jobs}/{waiting.id}", {}),
        (sees, "GET", f"{jobs}/{waiting.id}/trace", {}),
        (sees, "GET", f"{jobs}/{waiting.id}/runners", {}),
        (sees, "GET", f"{ROOTS['project']}/matching_runners", {}),
        (sees, "GET", templates, {}),
        (runs, "POST", jobs, new),
        (runs, "POST", templates, new),
        (runs, "POST", f"{jobs}/{waiting.id}/cancel", {}),
        (runs, "POST", f"{jobs}/{waiting.id}/retry", {}),
        (runs, "POST", f"{jobs}/{waiting.id}/erase", {}),
        (maintains, "POST", jobs, {**new, "protected": True}),
        (maintains, "POST", templates, {**new, "name": "release", "protected": True}),
        (maintains, "POST", f"{jobs}/{protected.id}/cancel", {}),
        (maintains, "PUT", ROOTS["project"], {"protected_refs": ["main"], "build_timeout": 7200}),
    ):
        assert script.ask(method, path, **given).status_code in (DONE if able else missing), (method, path, given)


@everybody
@everywhere
def test_rest_lets_check_runners_those_who_change_them_and_read_checks_those_who_look_after_them(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    script, path = script_of(app, cast, stage, name), f"/runners/{stage.runners[kind]}"
    check = cast.check(stage.runner(kind))
    missing = (403,) if reads(name, kind) else (404,)
    for able, method, after in (
        ("R" in cell(name, kind), "GET", "/checks"),
        ("R" in cell(name, kind), "GET", f"/checks/{check.id}"),
        ("R" in cell(name, kind), "GET", f"/checks/{check.id}/trace"),
        ("U" in cell(name, kind), "POST", "/check"),
        ("U" in cell(name, kind), "POST", f"/checks/{check.id}/cancel"),
    ):
        assert script.ask(method, path + after).status_code in (DONE if able else missing), (method, after)


# GraphQL


def gid(kind: str, number: int | None) -> str:
    return f"gid://gitlab/{kind}/{number}"


@pytest.fixture
def asker(app: Flask, cast: Cast, stage: Stage) -> Callable[[str], Asker]:
    return lambda name: Asker(app.test_client(), cast.access_token(stage.people[name]))


def done(asker: Asker, mutation: str, wanted: str, **given: Any) -> bool:
    """Whether the mutation was done; it is refused at the top or in its payload."""
    capital = mutation[0].upper() + mutation[1:]
    query = f"mutation($input: {capital}Input!) {{ {mutation}(input: $input) {{ errors {wanted} }} }}"
    body = asker.whole(query, input=given)
    payload = (body.get("data") or {}).get(mutation)
    return "errors" not in body and payload is not None and payload["errors"] == []


@everybody
@everywhere
def test_graphql_shows_a_runner_to_those_in_the_table(
    asker: Callable[[str], Asker], stage: Stage, name: str, kind: str
) -> None:
    query = (
        "query($id: CiRunnerID!) { runner(id: $id) { id userPermissions { readRunner updateRunner deleteRunner } } }"
    )
    found = asker(name).data(query, id=gid("Ci::Runner", stage.runners[kind]))["runner"]
    assert (found is not None) is reads(name, kind)
    if found is not None:
        able = {"readRunner": True, "updateRunner": "U" in cell(name, kind), "deleteRunner": "D" in cell(name, kind)}
        assert found["userPermissions"] == able


@everybody
@everywhere
def test_graphql_mutations_are_done_for_those_in_the_table(
    asker: Callable[[str], Asker], stage: Stage, name: str, kind: str
) -> None:
    who, runner = asker(name), gid("Ci::Runner", stage.runners[kind])
    owner = {} if kind == "instance" else {f"{kind}Id": gid(kind.capitalize(), stage.scopes[kind].id)}
    created = done(who, "runnerCreate", "runner { id }", runnerType=f"{kind.upper()}_TYPE", tagList=["x"], **owner)
    assert created is ("C" in cell(name, kind))
    assert done(who, "runnerUpdate", "runner { id }", id=runner, description="New") is ("U" in cell(name, kind))
    place = {} if kind == "instance" else {"id": gid(kind.capitalize(), stage.scopes[kind].id)}
    reset = done(who, "runnersRegistrationTokenReset", "token", type=f"{kind.upper()}_TYPE", **place)
    assert reset is ("T" in cell(name, kind))
    done(who, "runnerBulkPause", "updatedCount", ids=[runner], paused=True)
    stage.session.expire_all()
    assert stage.runner(kind).paused is ("U" in cell(name, kind))
    assert done(who, "runnerDelete", "", id=runner) is ("D" in cell(name, kind))


@everybody
def test_graphql_assigns_a_projects_runner_for_those_who_change_it(
    asker: Callable[[str], Asker], session: Session, cast: Cast, stage: Stage, name: str
) -> None:
    api = cast.project("api", cast.acme)
    for each in ("project owner", "project maintainer"):
        cast.member(stage.people[each], api, Role.MAINTAINER)
    session.commit()
    who, able = asker(name), "U" in cell(name, "project")
    given = {"runnerId": gid("Ci::Runner", stage.runners["project"]), "projectPath": "acme/api"}
    assert done(who, "runnerAssignToProject", "", **given) is able
    if not able:
        runner_projects.assign(session, SYSTEM, stage.runner("project"), api)
        session.commit()
    assert done(who, "runnerUnassignFromProject", "", **given) is able


@everybody
@everywhere
def test_graphql_lists_a_scopes_runners_for_those_in_the_table(
    asker: Callable[[str], Asker], stage: Stage, name: str, kind: str
) -> None:
    inside = {
        "instance": "{ runners { nodes { id } } }",
        "group": '{ group(fullPath: "acme") { runners { nodes { id } } } }',
        "project": '{ project(fullPath: "acme/web") { runners { nodes { id } } } }',
    }[kind]
    body = asker(name).whole(inside)
    data = body.get("data") or {}
    found = data if kind == "instance" else data.get(kind) or {}
    listed = {each["id"] for each in (found.get("runners") or {}).get("nodes") or []}
    assert (gid("Ci::Runner", stage.runners[kind]) in listed) is ("R" in cell(name, kind))


@everybody
def test_graphql_shows_jobs_to_reporters_and_above_and_stops_them_for_those_who_may_run_them(
    asker: Callable[[str], Asker], cast: Cast, name: str
) -> None:
    job, protected = cast.job(), cast.job(protected=True)
    who = asker(name)
    query = '{ project(fullPath: "acme/web") { jobs { nodes { id } } } }'
    found = (who.whole(query).get("data") or {}).get("project") or {}
    sees = name not in ("guest", "stranger")
    assert len((found.get("jobs") or {}).get("nodes") or []) == (2 if sees else 0)
    assert done(who, "jobCancel", "", id=gid("Ci::Build", job.id)) is (sees and name != "reporter")
    assert done(who, "jobRetry", "", id=gid("Ci::Build", job.id)) is (sees and name != "reporter")
    maintains = sees and name not in ("reporter", "developer")
    assert done(who, "jobCancel", "", id=gid("Ci::Build", protected.id)) is maintains


@everybody
@everywhere
def test_graphql_checks_are_stopped_by_those_who_look_after_the_runner(
    asker: Callable[[str], Asker], cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    check = cast.check(stage.runner(kind))
    assert done(asker(name), "jobCancel", "", id=gid("Ci::Build", check.id)) is ("U" in cell(name, kind))


@everybody
@everywhere
def test_graphql_changes_nothing_for_a_token_that_only_reads(
    app: Flask, cast: Cast, stage: Stage, name: str, kind: str
) -> None:
    who = Asker(app.test_client(), cast.access_token(stage.people[name], "read_api"))
    runner = gid("Ci::Runner", stage.runners[kind])
    query = "mutation($id: CiRunnerID!) { runnerDelete(input: {id: $id}) { errors } }"
    answer = who.send(query, id=runner)
    assert "errors" in answer.get_json()
    assert stage.runner(kind).deletion_id is None
