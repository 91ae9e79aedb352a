"""Which jobs that wait a runner could take, as far as each person may see them; and why it takes none."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.jobs import takeable_jobs
from portal.domain.jobs.job_matching import Obstacle
from portal.domain.jobs.takeable_jobs import Takeable
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Runner, User
from tests.cast import Cast
from tests.domain.queries import asked
from tests.runners import heard_of


def takes(cast: Cast, runner: Runner, person: User | None = None, **part: int) -> Takeable:
    return takeable_jobs.takeable(cast.session, cast.as_(person or cast.dana), runner, **part)


def ids(found: Takeable) -> list[int]:
    return [job.id for job in found.page.rows]


def test_jobs_that_it_may_take_are_named_in_the_order_of_their_turns(cast: Cast) -> None:
    its = heard_of(cast)
    first, second = cast.job(tags=("docker",)), cast.job(tags=("linux", "docker"))
    cast.job(tags=("gpu",))
    cast.job(cast.project("far", cast.other), tags=("docker",))
    found = takes(cast, its)
    assert ids(found) == [first.id, second.id]
    assert (found.headline, found.page.total, found.hidden) == ("It could take 2 jobs that wait.", 2, 0)


def test_its_own_checks_come_first_and_those_of_others_never(cast: Cast) -> None:
    its = heard_of(cast)
    job, check = cast.job(tags=("docker",)), cast.check(its)
    cast.check(heard_of(cast))
    assert ids(takes(cast, its)) == [check.id, job.id]


def test_a_job_of_a_project_that_it_is_assigned_to_is_named_once(cast: Cast) -> None:
    api = cast.project("api", cast.acme)
    its = heard_of(cast, cast.web)
    runner_projects.assign(cast.session, cast.as_(cast.dana), its, api)
    expected = {cast.job(api, tags=("docker",)).id, cast.job(tags=("docker",)).id}
    assert sorted(ids(takes(cast, its))) == sorted(expected)


def test_jobs_of_projects_that_one_may_not_see_are_only_counted(cast: Cast) -> None:
    its = heard_of(cast, scopes.INSTANCE)
    mine = cast.job(tags=("docker",))
    cast.job(cast.project("far", cast.other), tags=("docker",))
    found = takes(cast, its, cast.bob)
    assert (ids(found), found.hidden, found.headline) == ([mine.id], 1, "It could take 2 jobs that wait.")
    assert (ids(takes(cast, its, cast.charlie)), takes(cast, its, cast.charlie).hidden) == ([], 2)


def test_a_paused_runner_takes_nothing_and_says_what_it_would_take(cast: Cast) -> None:
    its = heard_of(cast)
    cast.job(tags=("docker",))
    its.active = False
    cast.session.commit()
    found = takes(cast, its)
    assert found.headline == (
        "It is paused, so it takes nothing. If it were resumed, it could take 1 job that waits."
    )
    assert found.paused


def test_a_runner_that_does_not_ask_is_told_so(cast: Cast) -> None:
    its = heard_of(cast, silent=9000)
    cast.job(tags=("docker",))
    assert takes(cast, its).headline == "It could take 1 job that waits, but none of its machines asks for jobs."


def test_where_it_takes_nothing_it_says_what_the_jobs_in_reach_ask_for(cast: Cast) -> None:
    its = heard_of(cast, settings=RunnerSettings("x", tags=("docker",), protected=True))
    for _ in range(2):
        cast.job(tags=("gpu",), protected=True)
    cast.job(tags=("docker",))
    cast.job()
    cast.job(cast.project("far", cast.other), tags=("docker",))
    found = takes(cast, its)
    assert [(each.tags, each.count, each.reason.code) for each in found.left_out] == [
        (("gpu",), 2, Obstacle.TAGS_MISSING),
        ((), 1, Obstacle.REF_NOT_PROTECTED),
        (("docker",), 1, Obstacle.REF_NOT_PROTECTED),
    ]
    assert found.headline == "It could take none of the jobs that wait: they ask for something else."


def test_what_jobs_ask_that_one_may_not_see_is_not_told(cast: Cast) -> None:
    its = heard_of(cast, scopes.INSTANCE)
    cast.job(cast.project("far", cast.other), tags=("secret",))
    found = takes(cast, its, cast.bob)
    assert (found.left_out, found.headline) == ([], "No job in its reach waits.")


def test_a_long_queue_comes_in_pages(cast: Cast) -> None:
    its = heard_of(cast)
    jobs = [cast.job(tags=("docker",)).id for _ in range(5)]
    first, last = takes(cast, its, limit=3), takes(cast, its, offset=3, limit=3)
    assert ids(first) + ids(last) == jobs
    assert (first.page.more, last.page.more, first.page.total) == (True, False, 5)


@pytest.mark.parametrize("username", ["dana", "bob"])
def test_many_jobs_take_as_many_statements_as_few(cast: Cast, session: Session, username: str) -> None:
    its, person = heard_of(cast), getattr(cast, username)

    def statements() -> int:
        session.expire_all()
        actor, runner = cast.as_(session.get_one(User, person.id)), session.get_one(Runner, its.id)
        with asked(session) as sent:
            found = takeable_jobs.takeable(session, actor, runner, limit=50)
            _ = [(job.project and job.project.id, job.user and job.user.name) for job in found.page.rows]
        return len(sent)

    cast.job(tags=("docker",))
    few = statements()
    for number in range(8):
        cast.job(tags=("docker",))
        cast.job(tags=(f"tag{number}",))
    assert statements() == few


def test_where_not_all_places_are_looked_at_it_says_so(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    its = heard_of(cast)
    cast.job(tags=("gpu",))
    cast.job(tags=("docker",))
    assert not takes(cast, its).partly
    monkeypatch.setattr(takeable_jobs, "MOST_PLACES", 1)
    found = takes(cast, its)
    assert found.partly
    assert found.headline.endswith(
        " Jobs wait in so many places that not all were looked at, so there may be more that it could take."
    )
