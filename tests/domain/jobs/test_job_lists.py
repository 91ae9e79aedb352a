"""Lists of jobs: stretches, counts, how long jobs waited and ran, why they failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from portal.domain.jobs import failure_reasons, job_lists, job_times
from portal.models import Job, JobStatus, Runner
from tests.cast import Cast

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def ran_by(cast: Cast, runner: Runner, count: int, status: str = "success") -> None:
    for _ in range(count):
        cast.job().runner_id = runner.id
    cast.session.flush()
    for job in cast.session.query(Job).filter_by(runner_id=runner.id, status="pending"):
        job.status = status
    cast.session.commit()


def test_a_stretch_lies_between_two_numbers_and_is_newest_first(cast: Cast) -> None:
    ids = [cast.job().id for _ in range(5)]
    everything = job_lists.of_project(cast.web)

    def stretch(**window: int | bool) -> list[int]:
        found = job_lists.stretch(cast.session, everything, size=2, **window)  # type: ignore[arg-type]
        return [ids.index(each.id) for each in found]

    assert stretch() == [4, 3]
    assert stretch(below=ids[3]) == [2, 1]
    assert stretch(oldest=True) == [1, 0]
    assert stretch(above=ids[1], oldest=True) == [3, 2]
    assert stretch(below=ids[2], above=ids[0]) == [1]


def test_jobs_of_many_runners_are_counted_together_up_to_one_more_than_the_limit(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many, none = (cast.runner().runner for _ in range(3))
    ran_by(cast, few, 1)
    ran_by(cast, few, 1, "failed")
    ran_by(cast, many, 5)
    ids = [few.id, many.id, none.id]
    assert job_lists.count_of_each(cast.session, ids) == {few.id: 2, many.id: 5}
    assert job_lists.count_of_each(cast.session, ids, [JobStatus.FAILED]) == {few.id: 1}
    monkeypatch.setattr(job_lists, "COUNTED", 3)
    assert job_lists.count_of_each(cast.session, ids) == {few.id: 2, many.id: 4}


@pytest.mark.parametrize(
    ("started", "finished", "waited", "ran"),
    [
        (None, None, 3600, None),
        (None, 10, 10, None),  # canceled while it waited
        (5, None, 5, 3595),
        (5, 65.5, 5, 60.5),
        (-1, 2, 0, 3),  # clocks of two servers
    ],
)
def test_how_long_a_job_waited_and_ran(
    started: float | None, finished: float | None, waited: float, ran: float | None
) -> None:
    job = Job(queued_at=NOON)
    job.started_at, job.finished_at = (
        None if each is None else NOON + timedelta(seconds=each) for each in (started, finished)
    )
    assert (job_times.waited(job, LATER), job_times.ran(job, LATER)) == (waited, ran)


def test_every_reason_is_told_in_sentences_and_one_that_nobody_knows_too() -> None:
    for reason in [*failure_reasons.REASONS, "something new", "", None]:
        sentence = failure_reasons.sentence(reason)
        assert sentence.endswith(".")
        assert sentence == sentence.strip()
    assert failure_reasons.sentence(None) == failure_reasons.sentence("unknown_failure")
