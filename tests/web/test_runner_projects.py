"""Assigning a project's runner to further projects, in the browser."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from portal.models import Role, Runner, RunnerProject
from tests.cast import Cast, csrf_of, send, sign_in
from tests.web.reading import read, words


@pytest.fixture
def api(cast: Cast) -> Scope:
    """A second project of acme, which Erin maintains."""
    project = cast.project("api", cast.acme)
    cast.member(cast.erin, project, Role.MAINTAINER)
    cast.session.commit()
    return project


@pytest.fixture
def runner(cast: Cast) -> Runner:
    return cast.runner(cast.web, RunnerSettings(description="Web runner", tags=("web",))).runner


def share(cast: Cast, runner: Runner, project: Scope) -> None:
    runner_projects.assign(cast.session, cast.as_(cast.dana), runner, project)
    cast.session.commit()


def home(runner: Runner, project: str = "acme/web") -> str:
    return f"/{project}/-/runners/{runner.id}"


def test_a_person_without_a_second_project_is_told_what_it_takes(
    client: FlaskClient, cast: Cast, runner: Runner
) -> None:
    page = words(read(sign_in(client, "bob"), f"{home(runner)}/projects"))
    assert "acme/web owns it" in page
    assert "There is no other project" in page


def test_a_project_that_bob_does_not_maintain_is_refused_and_named_nowhere(
    client: FlaskClient, cast: Cast, api: Scope, runner: Runner
) -> None:
    bob, address = sign_in(client, "bob"), f"{home(runner)}/projects"
    csrf = csrf_of(read(bob, address))
    assert bob.post(address, data={"csrf_token": csrf, "project_id": api.id}).status_code == 404
    for nothing in ("", "x", "0", "9" * 30):
        assert bob.post(address, data={"csrf_token": csrf, "project_id": nothing}).status_code == 404
    assert "acme/api" not in read(bob, address)


def test_alice_finds_a_project_by_a_part_of_its_path_and_assigns_the_runner(
    client: FlaskClient, cast: Cast, session: Session, api: Scope, runner: Runner
) -> None:
    alice, address = sign_in(client, "alice"), f"{home(runner)}/projects"
    assert "No project fits “nothing”" in words(read(alice, f"{address}?search=nothing"))
    assert "acme/api" in read(alice, f"{address}?search=AP")
    send(alice, address, project_id=api.id, expect=302)
    assert "now takes jobs of acme/api too" in words(read(alice, address))
    assert "Web runner" in read(alice, "/acme/api/-/runners")
    again = send(alice, address, project_id=api.id, expect=422).get_data(as_text=True)
    assert "acme/api has this runner already" in words(again)
    assert session.scalars(select(RunnerProject.project_id)).all() == [api.id]


def test_a_locked_runner_is_offered_to_nobody_and_the_page_says_why(
    client: FlaskClient, cast: Cast, session: Session, api: Scope, runner: Runner
) -> None:
    session.get_one(Runner, runner.id).locked = True
    session.commit()
    alice, address = sign_in(client, "alice"), f"{home(runner)}/projects"
    page = read(alice, address)
    assert "locked to its project" in words(page)
    answer = alice.post(address, data={"csrf_token": csrf_of(read(alice, home(runner))), "project_id": api.id})
    assert answer.status_code == 403


def test_a_maintainer_of_the_further_project_pauses_the_runner_and_may_not_delete_it(
    client: FlaskClient, cast: Cast, api: Scope, runner: Runner
) -> None:
    erin = sign_in(client, "erin")
    assert erin.get(home(runner, "acme/api")).status_code == 404
    share(cast, runner, api)
    there = home(runner, "acme/api")
    assert "Pause" in read(erin, "/acme/api/-/runners")
    send(erin, f"{there}/pause", form_at=there, expect=302)
    assert "takes no new jobs" in words(read(erin, there))
    assert send(erin, f"{there}/delete", form_at=there, expect=403)
    assert "Unassign it from your project instead" in words(
        send(erin, f"{there}/delete", form_at=there).get_data(as_text=True)
    )


def test_erin_takes_the_runner_out_of_her_project(
    client: FlaskClient, cast: Cast, api: Scope, runner: Runner
) -> None:
    share(cast, runner, api)
    erin, there = sign_in(client, "erin"), home(runner, "acme/api")
    answer = send(erin, f"{there}/projects/{api.id}/unassign", form_at=f"{there}/projects", expect=302)
    assert answer.headers["Location"] == "/acme/api/-/runners"
    assert erin.get(there).status_code == 404


def test_the_owner_project_keeps_its_runner(client: FlaskClient, cast: Cast, runner: Runner) -> None:
    bob, address = sign_in(client, "bob"), f"{home(runner)}/projects"
    answer = send(bob, f"{address}/{cast.web.id}/unassign", form_at=address, expect=403)
    assert "Delete the runner instead" in words(answer.get_data(as_text=True))


def test_the_link_in_a_machines_log_leads_erin_to_the_runner_in_her_project(
    client: FlaskClient, cast: Cast, api: Scope, runner: Runner
) -> None:
    share(cast, runner, api)
    answer = sign_in(client, "erin").get(f"/-/runners/{runner.id}")
    assert answer.headers["Location"] == home(runner, "acme/api")


def test_a_group_runner_says_that_it_serves_all_its_projects(client: FlaskClient, cast: Cast) -> None:
    issued = cast.runner()
    page = words(read(sign_in(client, "alice"), f"/groups/acme/-/runners/{issued.runner.id}/projects"))
    assert "takes jobs of every project in acme" in page
