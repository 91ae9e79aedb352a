"""Why a job waits: who takes it now, who does not and why, as far as each person may know."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.jobs import job_rules, jobs, runners_in_reach, stuck_jobs
from portal.domain.jobs.job_matching import Obstacle
from portal.domain.jobs.job_rules import JobRules
from portal.domain.jobs.runners_in_reach import LOOKED_AT
from portal.domain.jobs.stuck_jobs import Explanation
from portal.domain.jobs.stuck_words import COUNTED, Readiness
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_status import ONLINE_WINDOW
from portal.models import CreationState, Job, JobStatus, Role, Runner, RunnerManager, RunnerType, User
from tests.cast import Cast
from tests.domain.queries import asked
from tests.runners import DOCKER
from tests.runners import heard_of as runner


def why(cast: Cast, job: Job, person: User | None = None) -> Explanation:
    return stuck_jobs.of_job(cast.session, cast.as_(person or cast.dana), job)


def test_a_runner_that_takes_it_and_asks_for_jobs_is_named_first(cast: Cast) -> None:
    old, fresh = runner(cast, silent=9000), runner(cast)
    found = why(cast, cast.job(tags=("docker",)))
    assert [(each.runner.id, each.readiness) for each in found.can] == [
        (fresh.id, Readiness.READY),
        (old.id, Readiness.OFFLINE),
    ]
    assert found.headline == "1 runner can take it now."
    assert found.remedy is None


def test_one_mistyped_letter_is_the_headline(cast: Cast) -> None:
    for _ in range(3):
        runner(cast)
    found = why(cast, cast.job(tags=("dcoker",)))
    assert found.headline == "No runner can take it. Change the tag “dcoker” to “docker”, and 3 runners take it."
    assert [each.reason.nearest_tags for each in found.others if each.reason] == [{"dcoker": "docker"}] * 3


def test_every_other_runner_has_the_first_rule_that_fails(cast: Cast) -> None:
    expected = {
        runner(cast, settings=RunnerSettings("paused", tags=("docker",), paused=True)).id: Obstacle.PAUSED,
        runner(cast, settings=RunnerSettings("guarded", tags=("docker",), protected=True)).id: (
            Obstacle.REF_NOT_PROTECTED
        ),
        runner(cast, scopes.INSTANCE).id: Obstacle.INSTANCE_RUNNERS_OFF,
        runner(cast, cast.web, RunnerSettings("other tags", tags=("gpu",))).id: Obstacle.TAGS_MISSING,
    }
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(shared_runners_enabled=False))
    runner(cast, cast.other)  # out of reach: not listed
    found = why(cast, cast.job(tags=("docker",)))
    assert {each.runner.id: each.reason.code for each in found.others if each.reason} == expected
    assert found.elsewhere == 1


def test_runners_of_the_groups_above_and_those_assigned_are_in_reach(cast: Cast) -> None:
    api = cast.project("api", cast.acme)
    assigned = runner(cast, api)
    runner_projects.assign(cast.session, cast.as_(cast.dana), assigned, cast.web)
    reach = {runner(cast, cast.acme).id, runner(cast, cast.web).id, runner(cast, scopes.INSTANCE).id, assigned.id}
    runner(cast, cast.platform)
    runner(cast, api)
    assert {each.runner.id for each in why(cast, cast.job(tags=("docker",))).can} == reach


@pytest.mark.parametrize(
    ("silent", "readiness", "headline"),
    [
        (10, Readiness.READY, "1 runner can take it now."),
        (600, Readiness.SILENT, "1 runner can take it, but it has not asked for jobs in the last 5 minutes."),
        (
            ONLINE_WINDOW.total_seconds() + 1,
            Readiness.OFFLINE,
            "1 runner can take it, but it is offline: it has not asked in over 2 hours.",
        ),
    ],
)
def test_who_could_take_it_and_does_not_ask_is_told_apart(
    cast: Cast, silent: float, readiness: Readiness, headline: str
) -> None:
    runner(cast, silent=silent)
    found = why(cast, cast.job(tags=("docker",)))
    assert (found.readiness, found.headline) == (readiness, headline)


def test_a_runner_without_a_machine_has_never_asked(cast: Cast) -> None:
    cast.runner(settings=DOCKER)
    found = why(cast, cast.job(tags=("docker",)))
    assert found.headline == "1 runner can take it, but no machine has ever asked for jobs with its token."


def test_a_runner_that_runs_a_job_is_busy(cast: Cast) -> None:
    its = runner(cast, silent=600)  # at its limit it does not ask
    running = cast.job(tags=("docker",))
    running.status, running.runner_id = JobStatus.RUNNING, its.id
    cast.session.commit()
    found = why(cast, cast.job(tags=("docker",)))
    assert found.readiness is Readiness.BUSY
    assert found.headline == "The one runner that can take it is busy. It begins when that one has room."
    runner(cast, silent=9000)
    assert why(cast, cast.job(tags=("docker",))).headline == (
        "2 runners can take it: 1 is busy, and the rest has not asked for jobs in 5 minutes."
    )


def test_jobs_that_have_their_turn_first_are_counted(cast: Cast) -> None:
    runner(cast)
    first, second, third = (cast.job(tags=("docker",)) for _ in range(3))
    cast.job(tags=("gpu",))
    assert [why(cast, each).before for each in (first, second, third)] == [0, 1, 2]
    assert why(cast, second).headline == "1 runner can take it now. 1 job that asks the same has its turn first."
    assert why(cast, third).headline.endswith("2 jobs that ask the same have their turn first.")
    assert COUNTED >= 2


def test_a_job_that_waits_no_more_has_no_place_in_the_queue(cast: Cast) -> None:
    runner(cast)
    job = cast.job(tags=("docker",))
    jobs.cancel(cast.session, cast.as_(cast.dana), job)
    found = why(cast, job)
    assert (found.before, len(found.can)) == (None, 1)


def test_a_project_without_any_runner_is_told_to_create_one(cast: Cast) -> None:
    assert why(cast, cast.job()).headline == (
        "No runner can take it: the project, its groups and the instance have none. Create one."
    )


def test_where_no_single_change_helps_it_says_so(cast: Cast) -> None:
    runner(cast, settings=RunnerSettings("x", tags=("windows",), protected=True))
    assert why(cast, cast.job(tags=("gpu",))).headline == (
        "No runner can take it, and no single change helps. Create one that fits, or see what each needs."
    )


# Who may know what


def test_who_may_not_see_a_runner_hears_only_how_many_there_are(cast: Cast) -> None:
    runner(cast, cast.acme)
    runner(cast, cast.web, RunnerSettings("secret", tags=("gpu",)))
    public = runner(cast, scopes.INSTANCE)
    job = cast.job(tags=("docker",))
    found = why(cast, job, cast.erin)
    assert [each.runner.id for each in found.can] == [public.id]
    assert (found.hidden_takers, found.hidden_others, len(found.others)) == (1, 1, 0)
    assert found.takers == {Readiness.READY: 2}
    seen = why(cast, job, cast.bob)
    assert (len(seen.can), len(seen.others), seen.hidden_takers, seen.hidden_others) == (2, 1, 0, 0)


def test_a_remedy_tells_nothing_of_a_runner_that_one_may_not_see(cast: Cast) -> None:
    runner(cast, cast.web, RunnerSettings("Secret name", tags=("docker",), paused=True))
    job = cast.job(tags=("docker",))
    assert "Secret name" in why(cast, job, cast.bob).headline
    assert why(cast, job, cast.erin).headline == (
        "The one runner in its reach cannot take it, and you may not see it: ask a maintainer."
    )


def test_only_runners_that_one_looks_after_are_counted_elsewhere(cast: Cast) -> None:
    runner(cast, cast.other)
    job = cast.job()
    assert why(cast, job, cast.bob).elsewhere == 0
    assert why(cast, job, cast.dana).elsewhere == 1


# Checks of a runner


def test_a_check_waits_for_its_runner_alone(cast: Cast) -> None:
    its = runner(cast, silent=9000)
    runner(cast)
    job = cast.check(its)
    found = why(cast, job)
    assert [each.runner.id for each in found.can] == [its.id]
    assert found.readiness is Readiness.OFFLINE
    its.active = False
    cast.session.commit()
    assert why(cast, job).headline == "No runner can take it. Resume “Docker fleet”, and it takes the job."


def test_a_check_of_one_machine_waits_for_that_machine(cast: Cast) -> None:
    its = runner(cast)
    machine = RunnerManager(runner_id=its.id, system_xid="s_1", creation_state=CreationState.FINISHED)
    machine.contacted_at = now() - timedelta(hours=5)
    cast.session.add(machine)
    cast.session.commit()
    job = cast.check(its, machine)
    found = why(cast, job)
    assert (found.readiness, found.can[0].readiness) == (Readiness.OFFLINE, Readiness.OFFLINE)
    machine.contacted_at = now()
    cast.session.commit()
    assert why(cast, job).readiness is Readiness.READY


# Without a job


def ask(cast: Cast, person: User | None = None, **asked_for: object) -> Explanation:
    return stuck_jobs.explain(cast.session, cast.as_(person or cast.dana), cast.web, **asked_for)  # type: ignore[arg-type]


def test_tags_and_a_ref_alone_are_answered_too(cast: Cast) -> None:
    runner(cast, settings=RunnerSettings("guarded", tags=("docker",), protected=True))
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(protected_refs=("main",)))
    assert ask(cast, tags=("docker",), ref="main").readiness is Readiness.READY
    assert ask(cast, tags=("docker",), ref="topic").readiness is None
    assert ask(cast, tags=("docker",), ref="topic", protected=True).readiness is Readiness.READY
    assert ask(cast, tags=("docker",), ref="main", protected=False).readiness is None


def test_what_no_job_can_have_is_refused_in_the_words_of_a_job(cast: Cast) -> None:
    with pytest.raises(Invalid) as refused:
        ask(cast, tags=tuple(f"t{number}" for number in range(60)), ref="a b")
    assert set(refused.value.problems) == {"tags", "ref"}


def test_only_who_may_see_the_projects_jobs_may_ask(cast: Cast) -> None:
    guest = cast.person("gus")
    cast.member(guest, cast.web, Role.GUEST)
    with pytest.raises(NotAllowed):
        ask(cast, guest)
    with pytest.raises(NotFound):
        ask(cast, cast.charlie)


# How much is looked at


def many(cast: Cast, number: int, *, tags: list[str], first: int = 0) -> None:
    """So many instance runners at once."""
    values = {
        "runner_type": RunnerType.INSTANCE,
        "registration_type": 1,
        "run_untagged": False,
        "tag_list": tags,
        "contacted_at": now(),
    }
    cast.session.execute(
        insert(Runner), [{**values, "description": f"Fleet {first + each}"} for each in range(number)]
    )
    cast.session.commit()


def test_at_most_so_many_runners_are_looked_at_and_those_that_take_it_first(cast: Cast) -> None:
    job = cast.job(tags=("docker",))
    old = runner(cast, silent=100_000)
    many(cast, LOOKED_AT + 20, tags=["windows"])
    found = why(cast, job)
    assert [each.runner.id for each in found.can] == [old.id]
    assert len(found.can) + len(found.others) == LOOKED_AT
    assert found.beyond == 21


def test_runners_that_the_project_shuts_out_push_nobody_aside(cast: Cast) -> None:
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, JobRules(shared_runners_enabled=False))
    old = runner(cast, silent=100_000)
    many(cast, LOOKED_AT + 5, tags=["docker"])
    assert [each.runner.id for each in why(cast, cast.job(tags=("docker",))).can] == [old.id]


@pytest.mark.parametrize("tags", [(), ("docker",)], ids=["untagged", "tagged"])
def test_the_only_runner_that_takes_it_is_found_wherever_it_stands(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(runners_in_reach, "DRAWN", 2)
    settings = RunnerSettings("takes it", tags=("docker",), run_untagged=True)
    old = runner(cast, scopes.INSTANCE, settings, silent=100_000)
    many(cast, 9, tags=["docker"])
    cast.session.execute(update(Runner).where(Runner.id != old.id).values(active=False))
    cast.session.commit()
    assert [each.runner.id for each in why(cast, cast.job(tags=tags)).can] == [old.id]


def test_where_not_all_are_looked_at_nobody_says_that_no_runner_takes_it(cast: Cast) -> None:
    many(cast, LOOKED_AT + 5, tags=["windows"])
    none = f"None of the {LOOKED_AT} runners that were looked at can take it"
    assert why(cast, cast.job(tags=("docker", "arm"))).headline == (
        f"{none}, and no single change helps. Create one that fits, or see what each needs."
    )
    assert why(cast, cast.job(tags=("window",))).headline.startswith(f"{none}. Change the tag “window” to “windows”")


@pytest.mark.parametrize("username", ["dana", "bob", "erin"])
def test_many_runners_take_as_many_statements_as_few(cast: Cast, session: Session, username: str) -> None:
    job, person = cast.job(tags=("docker",)), getattr(cast, username)
    api = cast.project("api", cast.acme)

    def statements() -> int:
        session.expire_all()
        actor = cast.as_(session.get_one(User, person.id))
        again = session.get_one(Job, job.id)
        with asked(session) as sent:
            stuck_jobs.of_job(session, actor, again)
        return len(sent)

    def more(number: int) -> None:
        for _ in range(number):
            shared = runner(cast, api, RunnerSettings("x", tags=("windows",)))
            runner_projects.assign(session, cast.as_(cast.dana), shared, cast.web)
            runner(cast, cast.acme, RunnerSettings("x", tags=("windows",)))
            runner(cast, cast.web, RunnerSettings("x", tags=("windows",)))
        session.commit()

    more(1)
    few = statements()
    more(5)
    many(cast, 250, tags=["windows"])
    assert statements() <= few + 1  # how many more there are
    assert few <= 16
