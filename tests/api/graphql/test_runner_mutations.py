"""Mutations of one runner and of its projects: what they change, what they refuse, in which class of error."""

from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from portal.domain.deletions import deletions
from portal.domain.groups import groups, scope_settings
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_access import further_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import of_runner
from portal.models import AuditEvent, Role, Runner, RunnerToken
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import NOT_AVAILABLE, Asker, gid, mutation_of
from tests.api.processes import Process
from tests.cast import Cast
from tests.domain.test_lock_order import Couple, delete_project, wait_for_a_waiting

NEW = """runner { id runnerType description tagList runUntagged paused locked accessLevel maximumTimeout
    maintenanceNote ephemeralAuthenticationToken createdBy { username } creationMethod }"""
UNTAGGED = RunnerSettings(run_untagged=True)


def counted(cast: Cast) -> int:
    return cast.session.scalar(select(func.count()).select_from(Runner)) or 0


def events(cast: Cast, action: str) -> list[AuditEvent]:
    cast.session.expire_all()
    return list(cast.session.scalars(select(AuditEvent).where(AuditEvent.action == action)))


# ---- runnerCreate


def test_the_answer_that_creates_a_runner_holds_its_token_and_no_later_one_does(
    cast: Cast, asker_of: AskerOf
) -> None:
    alice = asker_of(cast.alice)
    given = {
        "runnerType": "GROUP_TYPE",
        "groupId": gid("Group", cast.acme.id),
        "description": "Fleet",
        "maintenanceNote": "Ask Alice.",
        "tagList": ["linux", " docker ", "linux"],
        "runUntagged": False,
        "maximumTimeout": 3600,
        "accessLevel": "REF_PROTECTED",
        "paused": True,
        "clientMutationId": "7",
    }
    payload = alice.change("runnerCreate", NEW, **given)
    token = payload["runner"].pop("ephemeralAuthenticationToken")
    number = payload["runner"].pop("id")
    assert token.startswith("glrt-t2_")
    assert payload == {
        "clientMutationId": "7",
        "errors": [],
        "runner": {
            "runnerType": "GROUP_TYPE",
            "description": "Fleet",
            "tagList": ["linux", "docker"],
            "runUntagged": False,
            "paused": True,
            "locked": False,
            "accessLevel": "REF_PROTECTED",
            "maximumTimeout": 3600,
            "maintenanceNote": "Ask Alice.",
            "createdBy": {"username": "alice"},
            "creationMethod": "AUTHENTICATED_USER",
        },
    }
    verified = alice.client.post("/api/v4/runners/verify", json={"token": token, "system_id": "s_1"})
    assert verified.status_code == 200
    query = "query($id: CiRunnerID!) { runner(id: $id) { ephemeralAuthenticationToken } }"
    assert alice.data(query, id=number) == {"runner": {"ephemeralAuthenticationToken": None}}
    assert len(events(cast, "runner_created")) == 1


def test_a_runner_takes_untagged_jobs_unless_told_otherwise(cast: Cast, asker_of: AskerOf) -> None:
    given = {"runnerType": "PROJECT_TYPE", "projectId": gid("Project", cast.web.id)}
    payload = asker_of(cast.bob).change("runnerCreate", NEW, **given)
    assert (payload["runner"]["runUntagged"], payload["runner"]["runnerType"]) == (True, "PROJECT_TYPE")
    given = {"runnerType": "INSTANCE_TYPE"}
    assert asker_of(cast.dana).change("runnerCreate", NEW, **given)["runner"]["runnerType"] == "INSTANCE_TYPE"


@pytest.mark.parametrize(("kind", "missing"), [("GROUP_TYPE", "`group_id`"), ("PROJECT_TYPE", "`project_id`")])
def test_the_id_of_its_scope_must_be_given(cast: Cast, asker_of: AskerOf, kind: str, missing: str) -> None:
    assert asker_of(cast.dana).refused("runnerCreate", runnerType=kind) == [f"{missing} is missing"]


def test_who_may_not_create_a_runner_hears_nothing_but_that(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    group, project = gid("Group", cast.acme.id), gid("Project", cast.web.id)
    before = counted(cast)
    for asker in (asker_of(cast.bob), asker_of(cast.charlie), asker_of(cast.erin), visitor):
        assert asker.refused("runnerCreate", runnerType="GROUP_TYPE", groupId=group) == [NOT_AVAILABLE]
        assert asker.refused("runnerCreate", runnerType="INSTANCE_TYPE") == [NOT_AVAILABLE]
    for asker in (asker_of(cast.charlie), asker_of(cast.erin), visitor):
        assert asker.refused("runnerCreate", runnerType="PROJECT_TYPE", projectId=project) == [NOT_AVAILABLE]
    missing = gid("Group", 999_999)
    assert asker_of(cast.dana).refused("runnerCreate", runnerType="GROUP_TYPE", groupId=missing) == [NOT_AVAILABLE]
    assert counted(cast) == before


def test_what_is_wrong_besides_does_not_tell_that_a_hidden_group_is_there(cast: Cast, asker_of: AskerOf) -> None:
    query, charlie = mutation_of("runnerCreate"), asker_of(cast.charlie)
    said = []
    for number in (cast.acme.id, 999_999):
        given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", number), "maximumTimeout": 5}
        answer = charlie.send(query, headers={"Idempotency-Key": "no key, with blanks"}, input=given)
        said.append([each["message"] for each in answer.get_json()["errors"]])
    assert said == [[NOT_AVAILABLE]] * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"maximumTimeout": 5}, "Maximum timeout needs to be at least 10 minutes"),
        ({"runUntagged": False}, "Tags list can not be empty when runner is not allowed to pick untagged jobs"),
        ({"description": "x" * 1025}, "Description is too long (maximum is 1024 characters)"),
        (
            {"tagList": [str(number) for number in range(51)]},
            "Tags list Too many tags specified. Please limit the number of tags to 50",
        ),
    ],
)
def test_values_that_cannot_be_taken_are_told_in_the_payload(
    cast: Cast, asker_of: AskerOf, wrong: dict[str, Any], said: str
) -> None:
    given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id), **wrong}
    payload = asker_of(cast.alice).change("runnerCreate", "runner { id }", **given)
    assert payload == {"clientMutationId": None, "errors": [said], "runner": None}


def test_that_nobody_may_create_runners_here_at_present_is_told(cast: Cast, asker_of: AskerOf) -> None:
    settings = scope_settings.chain(cast.session, cast.acme).instance
    settings.valid_runner_registrars = ["project"]
    cast.session.add(settings)
    cast.session.commit()
    given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id)}
    errors = asker_of(cast.alice).change("runnerCreate", **given)["errors"]
    assert "administrators" in errors[0]


def test_the_same_idempotency_key_makes_one_runner_and_shows_its_token_once(cast: Cast, asker_of: AskerOf) -> None:
    alice, before = asker_of(cast.alice), counted(cast)
    given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id)}
    key = {"Idempotency-Key": "one"}
    first = alice.send(mutation_of("runnerCreate", NEW), headers=key, input=given)
    again = alice.send(mutation_of("runnerCreate", NEW), headers=key, input=given)
    made, repeated = (each.get_json()["data"]["runnerCreate"]["runner"] for each in (first, again))
    assert made.pop("ephemeralAuthenticationToken")
    assert repeated.pop("ephemeralAuthenticationToken") is None
    assert made == repeated
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    other = alice.change("runnerCreate", headers=key, **{**given, "description": "another"})
    assert "Idempotency-Key" in other["errors"][0]
    assert counted(cast) == before + 1


# ---- runnerUpdate


def test_what_is_given_changes_and_the_rest_stays(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.web, RunnerSettings(description="old", tags=("a",), maximum_timeout=900)).runner
    given = {
        "id": gid("Ci::Runner", runner.id),
        "locked": True,
        "paused": True,
        "tagList": ["b"],
        "description": None,
    }
    payload = asker_of(cast.bob).change("runnerUpdate", NEW, **given)
    found = payload["runner"]
    assert payload["errors"] == []
    assert (found["description"], found["tagList"], found["locked"], found["paused"]) == ("old", ["b"], True, True)
    assert found["maximumTimeout"] == 900
    given = {"id": gid("Ci::Runner", runner.id), "active": True, "maximumTimeout": None}
    found = asker_of(cast.bob).change("runnerUpdate", NEW, **given)["runner"]
    assert (found["paused"], found["maximumTimeout"]) == (False, None)


def test_a_wrong_value_changes_nothing(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme, UNTAGGED).runner
    given = {"id": gid("Ci::Runner", runner.id), "description": "new", "maximumTimeout": 1}
    payload = asker_of(cast.alice).change("runnerUpdate", "runner { id }", **given)
    assert payload["runner"] is None
    assert payload["errors"] == ["Maximum timeout needs to be at least 10 minutes"]
    cast.session.refresh(runner)
    assert runner.description == ""


def test_who_may_not_change_it_hears_the_same_as_of_one_that_is_not_there(
    cast: Cast, asker_of: AskerOf, visitor: Asker
) -> None:
    runner = cast.runner(cast.acme, UNTAGGED).runner
    for asker in (asker_of(cast.bob), asker_of(cast.charlie), visitor):
        for number in (runner.id, 999_999):
            given = {"id": gid("Ci::Runner", number), "description": "mine"}
            assert asker.refused("runnerUpdate", **given) == [NOT_AVAILABLE]
    cast.session.refresh(runner)
    assert runner.description == ""


def test_what_one_may_not_do_with_a_runner_stands_on_the_trail(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    asker_of(cast.bob).refused("runnerUpdate", id=gid("Ci::Runner", runner.id), paused=True)
    (event,) = events(cast, "act_refused")
    assert (event.actor_id, event.changes["request"][1]) == (cast.bob.id, "POST /api/graphql")


def test_associated_projects_are_what_it_serves_afterwards(cast: Cast, asker_of: AskerOf) -> None:
    runner, alice = cast.runner(cast.web, UNTAGGED).runner, asker_of(cast.alice)
    api, docs = cast.project("api", cast.acme), cast.project("docs", cast.acme)
    secret = cast.project("secret", cast.other)
    runner_projects.assign(cast.session, cast.as_(cast.dana), runner, api)
    cast.session.commit()

    def serve(*projects: int | None, **more: Any) -> Any:
        given = {"id": gid("Ci::Runner", runner.id), "associatedProjects": [gid("Project", it) for it in projects]}
        wanted = "runner { projects { nodes { fullPath } } }"
        payload = alice.change("runnerUpdate", wanted, **given, **more)
        found = payload["runner"]
        return payload["errors"] or [each["fullPath"] for each in found["projects"]["nodes"]]

    assert serve(docs.id) == ["acme/web", "acme/docs"]
    assert serve(docs.id, api.id, cast.web.id) == ["acme/web", "acme/api", "acme/docs"]
    assert "you may not see it" in serve(secret.id, description="no")[0]
    assert "you may not see it" in serve(999_999)[0]
    assert serve(api.id, locked=True) == ["acme/web", "acme/api"]
    assert "locked" in serve(docs.id)[0]
    assert serve(docs.id, locked=False) == ["acme/web", "acme/docs"]
    cast.session.refresh(runner)
    assert runner.description == ""
    assert serve() == ["acme/web"]


def test_projects_and_settings_change_together_or_not_at_all(cast: Cast, asker_of: AskerOf) -> None:
    runner, api = cast.runner(cast.web, UNTAGGED).runner, cast.project("api", cast.acme)
    cast.session.commit()
    given = {"id": gid("Ci::Runner", runner.id), "associatedProjects": [gid("Project", api.id)], "maximumTimeout": 1}
    assert asker_of(cast.alice).change("runnerUpdate", **given)["errors"]
    cast.session.expire_all()
    assert further_projects(cast.session, runner) == []
    assert events(cast, "runner_assigned") == []


def test_only_a_project_runner_has_associated_projects(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme, UNTAGGED).runner
    given = {"id": gid("Ci::Runner", runner.id), "associatedProjects": [gid("Project", cast.web.id)]}
    assert "project runners only" in asker_of(cast.alice).refused("runnerUpdate", **given)[0]


# ---- runnerDelete


def test_a_runner_is_deleted_so_that_people_can_restore_it(cast: Cast, asker_of: AskerOf) -> None:
    runner, alice = cast.runner(cast.acme).runner, asker_of(cast.alice)
    given = {"id": gid("Ci::Runner", runner.id), "clientMutationId": "x"}
    assert alice.change("runnerDelete", **given) == {"clientMutationId": "x", "errors": []}
    assert alice.refused("runnerDelete", **given) == [NOT_AVAILABLE]
    assert deletions.refusal_of(cast.session, runner.id)
    assert len(events(cast, "runner_deleted")) == 1


def test_a_runner_of_others_is_not_deleted(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    runner = cast.runner(cast.acme).runner
    for asker in (asker_of(cast.bob), asker_of(cast.charlie), visitor):
        assert asker.refused("runnerDelete", id=gid("Ci::Runner", runner.id)) == [NOT_AVAILABLE]
    assert events(cast, "runner_deleted") == []


def test_why_a_shared_runner_is_not_deleted_is_told(cast: Cast, asker_of: AskerOf) -> None:
    runner, api = cast.runner(cast.web).runner, cast.project("api", cast.acme)
    runner_projects.assign(cast.session, cast.as_(cast.dana), runner, api)
    cast.member(cast.bob, api, Role.GUEST)
    cast.session.commit()
    (error,) = asker_of(cast.bob).change("runnerDelete", id=gid("Ci::Runner", runner.id))["errors"]
    assert "acme/api" in error


# ---- runnerAssignToProject, runnerUnassignFromProject


def test_a_runner_is_assigned_and_unassigned(cast: Cast, asker_of: AskerOf) -> None:
    runner, alice = cast.runner(cast.web).runner, asker_of(cast.alice)
    cast.project("api", cast.acme)
    cast.session.commit()
    given = {"runnerId": gid("Ci::Runner", runner.id), "projectPath": "acme/api"}
    assert alice.change("runnerAssignToProject", **given)["errors"] == []
    assert [each.full_path for each in further_projects(cast.session, runner)] == ["acme/api"]
    assert "has this runner already" in alice.change("runnerAssignToProject", **given)["errors"][0]
    assert alice.change("runnerUnassignFromProject", **given)["errors"] == []
    assert alice.refused("runnerUnassignFromProject", **given) == [NOT_AVAILABLE]
    cast.session.expire_all()
    assert further_projects(cast.session, runner) == []


def test_the_owner_is_no_project_to_assign_to_or_to_unassign_from(cast: Cast, asker_of: AskerOf) -> None:
    runner, alice = cast.runner(cast.web).runner, asker_of(cast.alice)
    given = {"runnerId": gid("Ci::Runner", runner.id), "projectPath": "acme/web"}
    assert "owns this runner" in alice.change("runnerAssignToProject", **given)["errors"][0]
    assert "Delete the runner" in alice.change("runnerUnassignFromProject", **given)["errors"][0]


def test_a_locked_runner_is_told_to_be_locked(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.web, RunnerSettings(run_untagged=True, locked=True)).runner
    cast.project("api", cast.acme)
    cast.session.commit()
    given = {"runnerId": gid("Ci::Runner", runner.id), "projectPath": "acme/api"}
    assert "locked" in asker_of(cast.alice).change("runnerAssignToProject", **given)["errors"][0]


def test_what_is_not_there_or_not_ones_own_is_one_and_the_same(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    of_project, of_group = cast.runner(cast.web).runner, cast.runner(cast.acme).runner
    cast.project("secret", cast.other)
    cast.project("api", cast.acme)
    cast.session.commit()
    cases = [
        (asker_of(cast.alice), of_project, "acme/nothing"),
        (asker_of(cast.alice), of_project, "other/secret"),
        (asker_of(cast.alice), of_group, "acme/api"),
        (asker_of(cast.bob), of_project, "acme/api"),
        (asker_of(cast.charlie), of_project, "acme/web"),
        (asker_of(cast.erin), of_project, "acme/web"),
        (visitor, of_project, "acme/web"),
    ]
    for asker, runner, path in cases:
        for mutation in ("runnerAssignToProject", "runnerUnassignFromProject"):
            given = {"runnerId": gid("Ci::Runner", runner.id), "projectPath": path}
            assert asker.refused(mutation, **given) == [NOT_AVAILABLE], (asker, path, mutation)


def test_nobody_learns_by_unassigning_which_hidden_project_owns_a_runner(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.project("secret", cast.other), UNTAGGED).runner
    runner_projects.assign(cast.session, cast.as_(cast.dana), runner, cast.web)
    cast.session.commit()
    bob = asker_of(cast.bob)
    for path in ("other/secret", "other/nothing"):
        given = {"runnerId": gid("Ci::Runner", runner.id), "projectPath": path}
        assert bob.refused("runnerUnassignFromProject", **given) == [NOT_AVAILABLE]


# ---- several in one request


def test_one_that_is_refused_leaves_the_others_as_they_are(cast: Cast, asker_of: AskerOf) -> None:
    mine, other = cast.runner(cast.acme, UNTAGGED).runner, cast.runner(cast.other, UNTAGGED).runner
    query = """mutation($mine: CiRunnerID!, $other: CiRunnerID!) {
        a: runnerUpdate(input: {id: $mine, description: "one"}) { errors }
        b: runnerUpdate(input: {id: $other, description: "two"}) { errors }
        c: runnerUpdate(input: {id: $mine, maximumTimeout: 1}) { errors }
        d: runnerUpdate(input: {id: $mine, paused: true}) { runner { description paused } }
    }"""
    ids = {"mine": gid("Ci::Runner", mine.id), "other": gid("Ci::Runner", other.id)}
    body = asker_of(cast.alice).whole(query, **ids)
    assert body["data"]["a"] == {"errors": []}
    assert body["data"]["b"] is None
    assert body["data"]["c"]["errors"]
    assert body["data"]["d"] == {"runner": {"description": "one", "paused": True}}
    assert [each["path"] for each in body["errors"]] == [["b"]]
    for runner in (mine, other):
        cast.session.refresh(runner)
    assert (mine.description, mine.paused, other.description) == ("one", True, "")


def test_a_failure_of_ours_in_one_leaves_the_others(
    cast: Cast, asker_of: AskerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = cast.runner(cast.acme, UNTAGGED).runner

    def fails(*_args: object, **_more: object) -> None:
        cast.session.scalar(select(func.count()).select_from(groups.Group))
        raise RuntimeError("of ours")

    monkeypatch.setattr("portal.domain.runners.runners.delete_runner", fails)
    query = """mutation($id: CiRunnerID!) { a: runnerUpdate(input: {id: $id, description: "kept"}) { errors }
        b: runnerDelete(input: {id: $id}) { errors } }"""
    body = asker_of(cast.alice).whole(query, id=gid("Ci::Runner", runner.id))
    assert body["data"] == {"a": {"errors": []}, "b": None}
    assert [each["message"] for each in body["errors"]] == ["Internal server error"]
    cast.session.refresh(runner)
    assert runner.description == "kept"


def test_tokens_and_texts_of_queries_are_in_no_log(
    cast: Cast, asker_of: AskerOf, caplog: pytest.LogCaptureFixture
) -> None:
    alice = asker_of(cast.alice)
    with caplog.at_level("DEBUG"):
        given = {"runnerType": "GROUP_TYPE", "groupId": gid("Group", cast.acme.id), "description": "zebra"}
        token = alice.change("runnerCreate", NEW, **given)["runner"]["ephemeralAuthenticationToken"]
        alice.data('query($s: String) { group(fullPath: "acme") { runners(search: $s) { count } } }', s=token)
        alice.whole("query($s: CiRunnerID!) { runner(id: $s) { id } }", s=token)
        alice.client.get("/api/graphql", query_string={"query": f'{{ group(fullPath: "{token}") {{ id }} }}'})
    logged = caplog.text + "".join(str(each.__dict__) for each in caplog.records)
    assert token not in logged
    assert "zebra" not in logged
    stored = cast.session.scalar(select(func.count()).where(RunnerToken.short == token[8:17]))
    assert stored == 1


def test_a_runner_is_unlocked_and_shared_while_its_project_is_deleted(process: Process) -> None:
    """Who deletes waits for the runner, so who has changed it must not wait for them before sharing it."""
    with process.session() as session:
        cast = Cast(session)
        runner_id = cast.runner(cast.web, RunnerSettings(tags=("web",), locked=True)).runner.id
        api = cast.project("api", cast.acme)
        runner_projects.assign(session, cast.as_(cast.dana), session.get_one(Runner, runner_id), api)
        alice = Asker(process.app.test_client(), cast.access_token(cast.alice))
        docs = gid("Project", cast.project("docs", cast.acme).id)
        session.commit()
    couple, deleting = Couple(process.engine), []

    def delete_meanwhile(flushed: Session, *_: object) -> None:
        if not deleting and any(isinstance(each, Runner) for each in flushed.dirty):
            deleting.append(couple.second(delete_project("acme/web")))
            wait_for_a_waiting(process.engine)

    event.listen(Session, "after_flush", delete_meanwhile)
    try:
        given = {"id": gid("Ci::Runner", runner_id), "locked": False, "associatedProjects": [docs]}
        assert alice.change("runnerUpdate", **given)["errors"] == []
    finally:
        event.remove(Session, "after_flush", delete_meanwhile)
    deleting[0].join()
    assert (couple.failures, couple.refused) == ([], [])
    with process.session() as session:
        assert of_runner(session.get_one(Runner, runner_id)).full_path == "acme/docs"
