"""`/projects/:id/runners`: a project's runner in further projects, in the words that clients know."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, Role, Runner, RunnerProject
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.runner_attributes import IN_LIST
from tests.api.for_users.scripts import Script
from tests.api.for_users.test_runners import sense
from tests.api.test_any_body import anything, calm
from tests.cast import Cast

LOCKED = RunnerSettings(tags=("web",), locked=True)


@pytest.fixture
def api(cast: Cast) -> Scope:
    """A second project of acme; Bob maintains it too."""
    project = cast.project("api", cast.acme)
    cast.member(cast.bob, project, Role.MAINTAINER)
    cast.session.commit()
    return project


@pytest.fixture
def runner(cast: Cast) -> Runner:
    return cast.runner(cast.web).runner


def assigned(session: Session) -> list[int]:
    return list(session.scalars(select(RunnerProject.project_id)))


@pytest.mark.parametrize("by", ["id", "path", "encoded path"])
def test_bob_assigns_his_runner_and_takes_it_back(
    app: Flask, script_of: ScriptOf, cast: Cast, session: Session, api: Scope, runner: Runner, by: str
) -> None:
    place = {"id": str(api.id), "path": "acme/api", "encoded path": "acme%2Fapi"}[by]
    script = script_of(cast.bob)
    said = script.post(f"/projects/{place}/runners", runner_id=runner.id)
    assert set(said) == IN_LIST
    assert (said["id"], said["runner_type"]) == (runner.id, "project_type")
    assert assigned(session) == [api.id]
    assert script.delete(f"/projects/{place}/runners/{runner.id}") is None
    assert assigned(session) == []
    actions = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)).all()
    assert actions[-2:] == ["runner_assigned", "runner_unassigned"]


def test_a_runner_of_a_group_or_of_the_instance_is_not_assigned(
    script_of: ScriptOf, cast: Cast, session: Session, api: Scope
) -> None:
    of_group, of_all = cast.runner(cast.acme).runner.id, cast.runner(INSTANCE).runner.id
    for script in (script_of(cast.alice), script_of(cast.dana)):
        said = script.post(f"/projects/{api.id}/runners", expect=403, runner_id=of_group)["message"]
        assert said.startswith("403 Forbidden - Runner is a group runner")
    said = script_of(cast.dana).post(f"/projects/{api.id}/runners", expect=400, runner_id=of_all)["message"]
    assert said.startswith("400 Bad request - This is the instance's runner: only a project's is assigned")
    script_of(cast.bob).post(f"/projects/{api.id}/runners", expect=403, runner_id=of_all)
    assert assigned(session) == []


def test_a_locked_runner_stays_where_it_is(script_of: ScriptOf, cast: Cast, session: Session, api: Scope) -> None:
    locked = cast.runner(cast.web, LOCKED).runner.id
    bob, dana = script_of(cast.bob), script_of(cast.dana)
    said = bob.post(f"/projects/{api.id}/runners", expect=403, runner_id=locked)["message"]
    assert said.startswith("403 Forbidden - Runner is locked: ")
    dana.post(f"/projects/{api.id}/runners", runner_id=locked)
    said = bob.delete(f"/projects/{api.id}/runners/{locked}", expect=403)["message"]
    assert said.startswith("403 Forbidden - Runner is locked: ")
    dana.delete(f"/projects/{api.id}/runners/{locked}")
    assert assigned(session) == []


def test_twice_or_to_its_owner_it_is_not_assigned(
    script_of: ScriptOf, cast: Cast, session: Session, api: Scope, runner: Runner
) -> None:
    script = script_of(cast.bob)
    script.post(f"/projects/{api.id}/runners", runner_id=runner.id)
    again = script.post(f"/projects/{api.id}/runners", expect=400, runner_id=runner.id)["message"]
    assert again.endswith("acme/api has this runner already.")
    owner = script.post(f"/projects/{cast.web.id}/runners", expect=400, runner_id=runner.id)["message"]
    assert owner.endswith("acme/web owns this runner already.")
    assert assigned(session) == [api.id]


def test_it_is_not_taken_from_its_owner(script_of: ScriptOf, cast: Cast, runner: Runner) -> None:
    said = script_of(cast.bob).delete(f"/projects/{cast.web.id}/runners/{runner.id}", expect=403)["message"]
    assert said == "403 Forbidden - You cannot unassign a runner from the owner project. Delete the runner instead"


def test_what_is_hidden_and_what_is_not_there_are_answered_alike(
    script_of: ScriptOf, cast: Cast, api: Scope, runner: Runner
) -> None:
    secret = cast.project("secret", cast.other)
    hidden = cast.runner(secret).runner.id
    bob = script_of(cast.bob)
    no_project, no_runner = {"message": "404 Project Not Found"}, {"message": "404 Runner Not Found"}
    for place in (secret.id, 987654321, "other/secret", "no/such", "x%00y", 10**30, 0):
        assert bob.post(f"/projects/{place}/runners", expect=404, runner_id=runner.id) == no_project
        assert bob.delete(f"/projects/{place}/runners/{runner.id}", expect=404) == no_project
    for number in (hidden, 987654321):
        assert bob.post(f"/projects/{api.id}/runners", expect=404, runner_id=number) == no_runner
        assert bob.delete(f"/projects/{api.id}/runners/{number}", expect=404) == no_runner
    assert bob.delete(f"/projects/{api.id}/runners/{runner.id}", expect=404) == no_runner  # not assigned


def test_who_may_not_create_runners_there_assigns_none(
    script_of: ScriptOf, cast: Cast, session: Session, api: Scope, runner: Runner
) -> None:
    platform = cast.project("docs", cast.acme)
    cast.member(cast.bob, platform, Role.DEVELOPER)
    session.commit()
    said = script_of(cast.bob).post(f"/projects/{platform.id}/runners", expect=403, runner_id=runner.id)
    assert "maintainers and owners may" in said["message"]
    script_of(cast.erin).post(f"/projects/{api.id}/runners", expect=404, runner_id=runner.id)


@pytest.mark.parametrize("scope", ["read_api", "manage_runner", "create_runner"])
def test_only_a_token_for_everything_assigns(
    script_of: ScriptOf, cast: Cast, api: Scope, runner: Runner, scope: str
) -> None:
    script = script_of(cast.bob, scope)
    assert script.post(f"/projects/{api.id}/runners", expect=403, runner_id=runner.id)["scope"] == "api"
    assert script.delete(f"/projects/{api.id}/runners/{runner.id}", expect=403)["scope"] == "api"


def test_the_runner_is_needed(script_of: ScriptOf, cast: Cast, api: Scope) -> None:
    path = f"/projects/{api.id}/runners"
    assert script_of(cast.bob).post(path, expect=400) == {"error": "runner_id is missing"}
    assert script_of(cast.bob).post(path, expect=400, runner_id="x") == {
        "error": "runner_id is invalid: a whole number"
    }


@calm
@given(number=anything)
def test_whatever_is_sent_is_answered_with_sense(danas: Script, number: Any) -> None:
    sense(danas, "POST", "/projects/acme%2Fweb/runners", {"runner_id": number})
