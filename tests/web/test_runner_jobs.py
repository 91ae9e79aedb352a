"""The jobs of a runner and of a machine: lists, filters, pages, who sees which; Active and Idle."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.jobs import jobs
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import Job, RunnerManager
from portal.web import runner_job_pages
from tests.api.machines import Machine, through
from tests.cast import Cast, sign_in
from tests.domain.queries import asked
from tests.web.reading import part, read, words

EVERYTHING = RunnerSettings(description="Takes all", run_untagged=True)


@dataclass
class Busy:
    """A runner of acme with two machines, and what they run."""

    issued: IssuedRunner
    machine: Machine
    other: Machine
    cast: Cast
    client: FlaskClient

    @property
    def url(self) -> str:
        return f"/groups/acme/-/runners/{self.issued.runner.id}"

    def ran(self, state: str = "success", machine: Machine | None = None, **asked_for: object) -> Job:
        job = self.cast.job(**asked_for)  # type: ignore[arg-type]
        given = (machine or self.machine).ask_for_job()
        if state != "running":
            given.finish(state=state, **({"failure_reason": "script_failure"} if state == "failed" else {}))
        return job


@pytest.fixture
def busy(cast: Cast, client: FlaskClient) -> Busy:
    issued = cast.runner(settings=EVERYTHING)
    machines = [Machine(through(client), issued.token, name) for name in ("s_one", "s_two")]
    return Busy(issued, *machines, cast, sign_in(client, "alice"))


def jobs_in(page: str) -> list[str]:
    """The names of the jobs in the table, as they stand there."""
    return re.findall(r'<a class="name"[^>]*>([^<]+)</a>', page)


def test_a_runner_that_ran_nothing_says_what_it_takes(busy: Busy) -> None:
    page = words(read(busy.client, f"{busy.url}/jobs"))
    assert "This runner has run no job yet." in page
    assert "untagged jobs only" in page


def test_the_list_says_what_is_known_of_each_job(busy: Busy) -> None:
    job = busy.ran(name="compile", ref="release/1")
    page = read(busy.client, f"{busy.url}/jobs")
    row = words(page[page.index("<tbody>") :])
    assert f"Success compile #{job.id} Project acme/web release/1" in row
    assert "Machine s_one Finished just now Duration under a second · queued under a second" in row
    assert f'href="/-/jobs/{job.id}"' in page
    assert busy.client.get(f"/-/jobs/{job.id}").location == f"/acme/web/-/jobs/{job.id}"


def test_the_newest_stand_first_and_the_rest_on_further_pages(
    busy: Busy, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_job_pages, "PAGE_SIZE", 2)
    for number in range(5):
        busy.ran(name=f"job {number}")
    first = read(busy.client, f"{busy.url}/jobs")
    assert jobs_in(first) == ["job 4", "job 3"]
    second = read(busy.client, link(first, "next"))
    assert jobs_in(second) == ["job 2", "job 1"]
    last = read(busy.client, link(second, "next"))
    assert jobs_in(last) == ["job 0"]
    assert jobs_in(read(busy.client, link(last, "prev"))) == ["job 2", "job 1"]


def link(page: str, rel: str) -> str:
    found = re.search(rf'rel="{rel}" href="([^"]+)"', page)
    assert found
    return found[1].replace("&amp;", "&")


def refresh_of(page: str) -> str:
    """What the list asks for by itself."""
    return re.findall(r'id="runner-jobs" hx-get="([^"]+)"', page)[0].replace("&amp;", "&")


def test_a_filter_shows_the_jobs_of_one_status_and_says_when_there_are_none(busy: Busy) -> None:
    busy.ran(name="good"), busy.ran("failed", name="bad"), busy.ran("running", name="busy")
    for status, names in (("success", ["good"]), ("failed", ["bad"]), ("running", ["busy"]), ("nonsense", 3)):
        found = jobs_in(read(busy.client, f"{busy.url}/jobs?status={status}"))
        assert (found if isinstance(names, list) else len(found)) == names
    assert "No job here is canceled." in words(read(busy.client, f"{busy.url}/jobs?status=canceled"))


def test_each_machine_has_its_own_list(busy: Busy, session: Session) -> None:
    busy.ran(name="here"), busy.ran(name="there", machine=busy.other)
    two = session.scalars(select(RunnerManager.id).where(RunnerManager.system_xid == "s_two")).one()
    address = f"{busy.url}/machines/{two}/jobs"
    assert address in read(busy.client, busy.url)
    assert jobs_in(read(busy.client, address)) == ["there"]
    foreign = busy.cast.runner().runner.id
    assert busy.client.get(f"/groups/acme/-/runners/{foreign}/machines/{two}/jobs").status_code == 404


def test_checks_that_wait_are_named_above_the_list(busy: Busy) -> None:
    check = busy.cast.check(busy.issued.runner)
    page = read(busy.client, f"{busy.url}/jobs")
    assert f"1 check waits for a machine: #{check.id}" in words(page)
    assert f"{busy.url}/checks/{check.id}" in page


def test_its_checks_have_a_list_with_those_that_no_machine_took(app: Flask, busy: Busy) -> None:
    address = f"{busy.url}/jobs?show=checks"
    assert "Nobody has checked this runner yet." in words(read(busy.client, address))
    busy.ran(name="no check")
    done, waits, never = (busy.cast.check(busy.issued.runner) for _ in range(3))
    jobs.cancel(busy.cast.session, busy.cast.as_(busy.cast.alice), never)
    busy.cast.session.commit()
    busy.machine.ask_for_job().finish()
    table = words(part(read(busy.client, address), "runner-jobs"))
    for job, says in ((done, "Success"), (waits, "Pending"), (never, "Canceled")):
        assert f"{says} {job.name} #{job.id}" in table
    assert "no check" not in table
    assert "none took it" in table
    bob = sign_in(app.test_client(), "bob")  # sees the runner inherited
    said = words(part(read(bob, f"/acme/web/-/runners/{busy.issued.runner.id}/jobs?show=checks"), "runner-jobs"))
    assert "Checks" not in said
    assert done.name not in said


def test_the_list_is_sent_again_only_when_it_differs(busy: Busy) -> None:
    busy.ran(name="first")
    again = refresh_of(read(busy.client, f"{busy.url}/jobs"))
    assert busy.client.get(again).status_code == 204
    busy.ran(name="second")
    assert jobs_in(read(busy.client, again)) == ["second", "first"]
    again = refresh_of(read(busy.client, again))
    busy.cast.check(busy.issued.runner)
    assert "1 check waits" in words(read(busy.client, again))


def test_the_runners_page_counts_the_jobs_that_one_may_see(app: Flask, busy: Busy) -> None:
    shop = busy.cast.project("shop", busy.cast.acme)
    busy.ran(name="ours"), busy.ran(name="theirs", scope=shop)
    assert "Details Jobs 2" in words(read(busy.client, busy.url))
    bob = sign_in(app.test_client(), "bob")
    seen = f"/acme/web/-/runners/{busy.issued.runner.id}"
    assert "Details Jobs 1" in words(read(bob, seen))
    page = read(bob, f"{seen}/jobs")
    assert jobs_in(page) == ["ours"]
    assert "theirs" not in page
    assert "acme/shop" not in page
    assert "1 job, and jobs of projects that you may not see" in words(page)
    assert "you may not see" not in words(read(busy.client, f"{busy.url}/jobs"))


def test_who_sees_a_runner_inherited_sees_none_of_its_checks(app: Flask, busy: Busy) -> None:
    busy.cast.check(busy.issued.runner)
    busy.machine.ask_for_job().finish()
    busy.cast.check(busy.issued.runner)
    bob = sign_in(app.test_client(), "bob")
    page = words(read(bob, f"/acme/web/-/runners/{busy.issued.runner.id}/jobs"))
    assert "This runner has run no job yet that you may see." in page
    assert "check waits" not in page


def test_runner_and_machine_are_active_while_they_run_a_job(busy: Busy) -> None:
    busy.other.poll()
    assert "Online Idle" in words(read(busy.client, "/groups/acme/-/runners"))
    busy.ran("running")
    assert "Online Active" in words(read(busy.client, "/groups/acme/-/runners"))
    page = read(busy.client, busy.url)
    assert "Online Active" in words(page[page.index('id="runner-status"') : page.index('class="tabs"')])
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", page[page.index("<tbody>") :], re.S)]
    assert [("Active" in row, "Idle" in row) for row in sorted(rows)] == [(True, False), (False, True)]


def test_a_runner_that_never_called_is_neither_active_nor_idle(busy: Busy) -> None:
    page = words(read(busy.client, busy.url))
    assert "Idle" not in page
    assert "Active" not in page


def test_deleting_says_how_many_jobs_run_at_this_moment(busy: Busy) -> None:
    assert "at this moment" not in read(busy.client, f"{busy.url}/delete")
    busy.ran("running")
    assert "It runs 1 job at this moment." in words(read(busy.client, f"{busy.url}/delete"))


def test_deleting_a_project_or_group_says_what_becomes_of_its_jobs(busy: Busy) -> None:
    for page in ("/groups/acme/-/delete", "/acme/web/-/delete"):
        assert "at this moment" not in read(busy.client, page)
    busy.ran("running"), busy.cast.job(), busy.cast.job()
    for page in ("/groups/acme/-/delete", "/acme/web/-/delete"):
        said = words(read(busy.client, page))
        assert "1 job that runs at this moment is stopped" in said
        assert "2 jobs that wait, which no runner gets meanwhile" in said


def test_a_page_of_jobs_asks_the_database_no_more_for_many(busy: Busy, session: Session) -> None:
    address = f"{busy.url}/jobs"
    busy.ran()
    read(busy.client, address)
    with asked(session) as few:
        read(busy.client, address)
    for number in range(4):
        busy.ran(scope=busy.cast.project(f"p{number}", busy.cast.acme))
    with asked(session) as many:
        read(busy.client, address)
    assert len(many) == len(few), [each for each in many if each not in few]


def test_the_short_link_is_nothing_to_who_may_not_see_the_job(app: Flask, busy: Busy) -> None:
    job = busy.cast.job()
    for who, expect in (("dana", 302), ("alice", 302), ("erin", 302), ("charlie", 404)):
        assert sign_in(app.test_client(), who).get(f"/-/jobs/{job.id}").status_code == expect
    assert busy.client.get("/-/jobs/999999").status_code == 404
