"""What a runner and its machines ran, and its checks: `/runners/:id/jobs`, `/managers/:system_id/jobs`, `/checks`."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask
from sqlalchemy import delete
from sqlalchemy.orm import Session

from portal.domain.jobs import job_walks
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import Runner, RunnerManager
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.test_jobs import JOB, ids, took
from tests.api.machines import Machine, through
from tests.cast import Cast

EVERYTHING = RunnerSettings(description="Takes all", run_untagged=True)


@pytest.fixture
def shared(cast: Cast) -> tuple[Runner, str]:
    """A runner of the instance, and its token."""
    issued = cast.runner(INSTANCE, EVERYTHING)
    return issued.runner, issued.token


def machine_of(app: Flask, token: str, system_id: str) -> Machine:
    return Machine(through(app.test_client()), token, system_id)


def test_a_runner_shows_of_its_jobs_those_that_one_may_see(
    app: Flask, script_of: ScriptOf, cast: Cast, shared: tuple[Runner, str]
) -> None:
    runner, token = shared
    machine = machine_of(app, token, "s_one")
    ours, theirs = cast.job(), cast.job(cast.project("secret", cast.other))
    took(machine).finish()
    took(machine)
    path = f"/runners/{runner.id}/jobs"
    assert ids(script_of(cast.dana).get(path)) == [theirs.id, ours.id]
    assert ids(script_of(cast.erin, "manage_runner").get(path)) == [ours.id]
    assert script_of(cast.charlie).get(path) == []
    (shown,) = script_of(cast.erin).get(path, status="success")
    assert (set(shown), shown["project"]["path_with_namespace"]) == (JOB, "acme/web")
    assert script_of(cast.erin).get(path, status="manual") == []
    answer = script_of(cast.dana).ask("GET", path, per_page=1, sort="asc")
    assert (ids(answer.get_json()), answer.headers["X-Total"]) == ([ours.id], "2")
    keyset = script_of(cast.dana).ask("GET", path, per_page=1, pagination="keyset")
    assert (ids(keyset.get_json()), 'rel="next"' in keyset.headers["Link"]) == ([theirs.id], True)


def test_who_sees_few_of_a_runners_jobs_is_led_on_to_all_of_them(
    app: Flask, script_of: ScriptOf, cast: Cast, shared: tuple[Runner, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("LOOKED_AT_FIRST", "LOOKED_THROUGH", "COUNTED"):
        monkeypatch.setattr(job_walks, limit, 2)
    runner, token = shared
    machine, secret = machine_of(app, token, "s_one"), cast.project("secret", cast.other)
    mine = []
    for scope in (None, secret, None, secret, secret, None):
        job = cast.job(scope)
        mine += [job.id] if scope is None else []
        took(machine).finish()
    script, found = script_of(cast.erin), []
    answer = script.ask("GET", f"/runners/{runner.id}/jobs", per_page=2, page=1, status="success")
    assert (answer.headers["X-Next-Page"], "X-Total" in answer.headers) == ("", False)
    for _ in range(9):
        found += ids(answer.get_json())
        following = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        if following is None:
            break
        query = dict(parse_qsl(urlsplit(following[1]).query))
        assert (query["pagination"], query["status"], "page" in query) == ("keyset", "success", False)
        answer = script.ask("GET", f"/runners/{runner.id}/jobs", **query)
    assert found == mine[::-1]


def test_each_machine_has_its_own_jobs_also_when_it_is_forgotten(
    app: Flask, script_of: ScriptOf, cast: Cast, session: Session, shared: tuple[Runner, str]
) -> None:
    runner, token = shared
    for system_id in ("s_one", "s_two"):
        cast.job(name=system_id)
        took(machine_of(app, token, system_id)).finish()
    machine_of(app, token, "s_idle").poll()
    script = script_of(cast.erin, "manage_runner")
    for _ in ("known", "forgotten"):
        (filtered,) = script.get(f"/runners/{runner.id}/jobs", system_id="s_two")
        (shown,) = script.get(f"/runners/{runner.id}/managers/s_two/jobs")
        assert filtered == shown
        assert (shown["name"], shown["runner_manager"]["system_id"]) == ("s_two", "s_two")
        session.execute(delete(RunnerManager).where(RunnerManager.system_xid == "s_two"))
        session.commit()
    assert script.get(f"/runners/{runner.id}/managers/s_idle/jobs") == []
    missing = script.get(f"/runners/{runner.id}/managers/s_never/jobs", expect=404)
    assert missing == {"message": "404 Runner Manager Not Found"}


def test_runners_and_machines_say_whether_they_run_a_job(
    app: Flask, script_of: ScriptOf, cast: Cast, shared: tuple[Runner, str]
) -> None:
    runner, token = shared
    cast.runner(INSTANCE)
    cast.job()
    held = took(machine_of(app, token, "s_busy"))
    machine_of(app, token, "s_idle").poll()
    script = script_of(cast.dana)

    def told() -> list[object]:
        machines = script.get(f"/runners/{runner.id}/managers")
        listed = script.get("/runners/all", include="managers")
        within = {each["system_id"]: each["job_execution_status"] for each in listed[0]["managers"]}
        return [
            [each["job_execution_status"] for each in listed],
            within,
            {each["system_id"]: each["job_execution_status"] for each in machines} == within,
            script.get(f"/runners/{runner.id}")["job_execution_status"],
        ]

    assert told() == [["active", "idle"], {"s_busy": "active", "s_idle": "idle"}, True, "active"]
    held.finish()
    assert told() == [["idle", "idle"], {"s_busy": "idle", "s_idle": "idle"}, True, "idle"]


# Checks


def test_a_runner_is_checked_and_its_log_is_the_proof(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    script, path = script_of(cast.bob, "manage_runner"), f"/runners/{issued.runner.id}"
    check = script.post(f"{path}/check")
    assert (check["checks_runner_id"], check["project"], check["status"]) == (issued.runner.id, None, "pending")
    assert check["web_url"] == f"https://portal.example.com/-/jobs/{check['id']}"
    assert ids(script.get(f"{path}/checks")) == [check["id"]]
    held = took(machine_of(app, issued.token, "s_one"))
    held.write(b"Hello\n")
    held.finish(b"Hello\n")
    shown = script.get(f"{path}/checks/{check['id']}")
    assert (shown["status"], shown["runner_manager"]["system_id"]) == ("success", "s_one")
    assert script.ask("GET", f"{path}/checks/{check['id']}/trace").data == b"Hello\n"
    assert ids(script.get(f"{path}/checks", status="running")) == []


def test_a_check_can_be_for_one_machine_and_can_be_stopped(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    one, two = (machine_of(app, issued.token, name) for name in ("s_one", "s_two"))
    assert [one.poll().status, two.poll().status] == [204, 204]
    script, path = script_of(cast.bob), f"/runners/{issued.runner.id}"
    check = script.post(f"{path}/check", system_id="s_two")
    assert one.poll().status == 204
    assert took(two).id == check["id"]
    assert script.post(f"{path}/check", expect=404, system_id="s_ten") == {"message": "404 Runner Manager Not Found"}
    waits = script.post(f"{path}/check", system_id="s_one")
    assert script.post(f"{path}/checks/{waits['id']}/cancel")["status"] == "canceled"
    assert script.post(f"{path}/checks/{waits['id']}/cancel", expect=409)["message"]


def test_a_paused_runner_is_not_checked(script_of: ScriptOf, cast: Cast) -> None:
    runner = cast.runner(cast.web).runner
    script = script_of(cast.bob)
    script.put(f"/runners/{runner.id}", paused=True)
    assert "Resume it first" in script.post(f"/runners/{runner.id}/check", expect=400)["message"]["runner"][0]


def test_checks_are_for_those_who_look_after_the_runner(script_of: ScriptOf, cast: Cast) -> None:
    runner = cast.runner(INSTANCE).runner
    check = cast.check(runner)
    paths = [
        ("POST", "/check"),
        ("GET", "/checks"),
        ("GET", f"/checks/{check.id}"),
        ("GET", f"/checks/{check.id}/trace"),
    ]
    paths += [("POST", f"/checks/{check.id}/cancel")]
    for method, path in paths:
        assert script_of(cast.alice).ask(method, f"/runners/{runner.id}{path}").status_code == 403
    mine = cast.runner(cast.web).runner
    for method, path in paths:
        assert script_of(cast.charlie).ask(method, f"/runners/{mine.id}{path}").status_code == 404
    assert script_of(cast.bob).get(f"/runners/{mine.id}/checks/{check.id}", expect=404) == {
        "message": "404 Check Not Found"
    }
