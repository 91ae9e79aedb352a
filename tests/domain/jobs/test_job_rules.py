"""A project's job settings: who changes them, what they may be, and that jobs which wait follow the switches."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.jobs import job_rules
from portal.domain.jobs.job_rules import JobRules
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, ProjectSettings
from tests.api.machines import Machine, through
from tests.cast import Cast

ANY = RunnerSettings(description="any", run_untagged=True)


@pytest.fixture
def session(session_beside: Session) -> Session:
    """The requests of machines close the app's session; the cast goes on in this one."""
    return session_beside


def test_a_project_without_settings_has_those_it_was_installed_with(cast: Cast, session: Session) -> None:
    assert job_rules.of_project(session, cast.web) == JobRules((), 3600, True, True)


def test_a_maintainer_settles_them_and_the_trail_tells_the_differences(cast: Cast, session: Session) -> None:
    wanted = JobRules(("main", "release/*"), 7200, shared_runners_enabled=False)
    assert job_rules.change(session, cast.as_(cast.bob), cast.web, wanted)
    assert job_rules.of_project(session, cast.web) == wanted
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "job_rules_changed")).one()
    assert event.changes == {
        "protected_refs": [[], ["main", "release/*"]],
        "build_timeout": [3600, 7200],
        "shared_runners_enabled": [True, False],
    }
    assert not job_rules.change(session, cast.as_(cast.bob), cast.web, wanted)
    assert job_rules.amend(session, cast.as_(cast.bob), cast.web, {"build_timeout": 600})
    assert job_rules.of_project(session, cast.web) == replace(wanted, build_timeout=600)


def test_a_developer_may_not_and_a_stranger_sees_nothing(cast: Cast, session: Session) -> None:
    with pytest.raises(NotAllowed):
        job_rules.change(session, cast.as_(cast.erin), cast.web, JobRules(build_timeout=600))
    with pytest.raises(NotFound):
        job_rules.amend(session, cast.as_(cast.charlie), cast.web, {"build_timeout": 600})
    assert session.scalars(select(ProjectSettings)).all() == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (JobRules(build_timeout=599), "build_timeout"),
        (JobRules(build_timeout=30 * 86_400 + 1), "build_timeout"),
        (JobRules(("has space",)), "protected_refs"),
        (JobRules(("x" * 256,)), "protected_refs"),
        (JobRules(("a\0b",)), "protected_refs"),
        (JobRules(tuple(f"r{number}" for number in range(101))), "protected_refs"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(cast: Cast, session: Session, wrong: JobRules, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        job_rules.change(session, cast.as_(cast.bob), cast.web, wrong)
    assert list(refused.value.problems) == [field]


def test_patterns_are_read_one_a_line_and_each_once() -> None:
    assert job_rules.split_patterns(" main \r\n\nrelease/*\nmain\n") == ("main", "release/*")


@pytest.mark.parametrize("switch", job_rules.SWITCHES)
def test_a_job_that_waits_is_given_to_no_runner_that_was_turned_off_and_again_when_it_is_on(
    cast: Cast, session: Session, client: FlaskClient, switch: str
) -> None:
    scope = INSTANCE if switch == "shared_runners_enabled" else cast.acme
    machine = Machine(through(client), cast.runner(scope, ANY).token)
    job = cast.job()
    settle(cast, **{switch: False})
    assert machine.poll().status == 204
    settle(cast, **{switch: True})
    assert machine.ask_for_job().id == job.id


def settle(cast: Cast, **said: bool) -> None:
    assert job_rules.amend(cast.session, cast.as_(cast.dana), cast.web, said)
    cast.session.commit()


@pytest.mark.parametrize(
    ("ref", "pattern", "fits"),
    [
        ("main", "main", True),
        ("main2", "main", False),
        ("release/1.2", "release/*", True),
        ("release/", "release/*", True),
        ("my-release/1", "release/*", False),
        ("v1.2-rc", "v*-rc", True),
        ("v-rc-rc", "v*-rc", True),
        ("a-b-c-d", "a*b*d", True),
        ("a-b-c", "a*b*d", False),
        ("aab", "*ab", True),
        ("mainX", "main.", False),
        ("anything", "*", True),
        ("anything", "**", True),
    ],
)
def test_a_star_stands_for_anything(ref: str, pattern: str, fits: bool) -> None:
    assert job_rules.is_protected(ref, [pattern]) is fits


def test_many_stars_cost_no_time() -> None:
    begun = time.monotonic()
    assert not job_rules.is_protected("a" * 255, ["*a" * 100 + "*b"])
    assert time.monotonic() - begun < 1
