"""Lists of jobs: stretches, counts, how long jobs waited and ran, why they failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.domain.jobs import failure_reasons, job_lists, job_paging, job_times, job_walks
from portal.domain.jobs.job_lists import JobFilter, JobPage
from portal.domain.jobs.job_walks import Count, JobList
from portal.models import Job, JobStatus, Runner
from tests.cast import Cast
from tests.domain.queries import asked

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def ran_by(cast: Cast, runner: Runner, count: int, status: str = "success") -> None:
    for _ in range(count):
        cast.job().runner_id = runner.id
    cast.session.flush()
    for job in cast.session.query(Job).filter_by(runner_id=runner.id, status="pending"):
        job.status = status
    cast.session.commit()


def test_a_stretch_lies_between_two_numbers_in_the_order_that_was_asked_for(cast: Cast) -> None:
    ids = [cast.job().id for _ in range(5)]
    everything = job_lists.of_project(cast.web)

    def stretch(**window: int | bool) -> list[int]:
        found = job_walks.walk(cast.session, everything, size=2, **window)  # type: ignore[arg-type]
        return [ids.index(each.id) for each in found.jobs]

    assert stretch() == [4, 3]
    assert stretch(below=ids[3]) == [2, 1]
    assert stretch(oldest=True) == [0, 1]
    assert stretch(above=ids[1], oldest=True) == [2, 3]
    assert stretch(below=ids[2], above=ids[0]) == [1]


def test_several_statuses_are_one_list(cast: Cast) -> None:
    waiting, over = [cast.job() for _ in range(3)], [cast.job() for _ in range(3)]
    for job in over:
        job.status = JobStatus.FAILED
    over[1].status = JobStatus.SUCCESS
    cast.session.flush()
    jobs = job_lists.of_project(cast.web).with_status([JobStatus.FAILED, JobStatus.PENDING])
    newest = [over[2], over[0], *reversed(waiting)]
    assert list(job_walks.walk(cast.session, jobs, size=9).jobs) == newest
    assert list(job_walks.walk(cast.session, jobs, size=9, oldest=True).jobs) == newest[::-1]
    page = job_lists.page(cast.session, jobs, size=2)
    assert list(job_lists.page(cast.session, jobs, size=2, after=page.after).jobs) == newest[2:4]
    assert job_lists.count(cast.session, jobs) == Count(5)
    assert job_lists.counts(cast.session, job_lists.of_project(cast.web))[JobStatus.FAILED] == Count(2)


class TestWhereEachJobHasToBeLookedAt:
    """Names, refs and tags are in no index: a page ends after so many jobs, and says up to which it looked."""

    @pytest.fixture(autouse=True)
    def little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(job_walks, "LOOKED_THROUGH", 3)
        monkeypatch.setattr(job_walks, "LOOKED_AT_FIRST", 2)
        monkeypatch.setattr(job_walks, "COUNTED", 3)

    @pytest.fixture
    def jobs(self, cast: Cast) -> list[Job]:
        """Seven, of which the first, the second and the last but one are called lint."""
        names = ("lint", "lint", "build", "build", "build", "lint", "build")
        return [cast.job(name=name) for name in names]

    def lint(self, cast: Cast, *statuses: JobStatus) -> JobList:
        return job_lists.narrowed(job_lists.of_project(cast.web), JobFilter(statuses, words="lint"))

    def test_pages_lead_on_until_all_was_looked_at(self, cast: Cast, jobs: list[Job]) -> None:
        session, lint = cast.session, self.lint(cast)
        first = job_lists.page(session, lint)
        assert (list(first.jobs), first.before, first.after, first.upto) == ([jobs[5]], None, jobs[4].id, jobs[4].id)
        second = job_lists.page(session, lint, after=first.after)
        assert (list(second.jobs), second.after, second.upto) == ([jobs[1]], jobs[1].id, jobs[1].id)
        third = job_lists.page(session, lint, after=second.after)
        assert (list(third.jobs), third.before, third.after, third.upto) == ([jobs[0]], jobs[0].id, None, None)

    def test_so_do_pages_in_front(self, cast: Cast, jobs: list[Job]) -> None:
        page = job_lists.page(cast.session, self.lint(cast), before=jobs[1].id)
        assert (list(page.jobs), page.before, page.after, page.upto) == ([], jobs[4].id, jobs[1].id + 1, jobs[4].id)
        page = job_lists.page(cast.session, self.lint(cast), before=page.before)
        assert (list(page.jobs), page.before, page.after) == ([jobs[5]], None, jobs[5].id)

    def test_a_page_without_jobs_leads_both_ways(self, cast: Cast, jobs: list[Job]) -> None:
        page = job_lists.page(cast.session, self.lint(cast), after=jobs[5].id)
        assert (list(page.jobs), page.before, page.after) == ([], jobs[5].id - 1, jobs[2].id)

    def test_a_full_page_says_nothing_of_it(self, cast: Cast, jobs: list[Job]) -> None:
        build = job_lists.narrowed(job_lists.of_project(cast.web), JobFilter(words="build"))
        page = job_lists.page(cast.session, build, size=1)
        assert (list(page.jobs), page.after, page.upto) == ([jobs[6]], jobs[6].id, None)

    def test_a_status_is_found_by_an_index_and_only_the_rest_is_looked_at(self, cast: Cast, jobs: list[Job]) -> None:
        jobs[0].status = JobStatus.FAILED
        cast.session.flush()
        page = job_lists.page(cast.session, self.lint(cast, JobStatus.FAILED))
        assert (list(page.jobs), page.after) == ([jobs[0]], None)

    def test_counts_say_that_there_may_be_more(self, cast: Cast, jobs: list[Job]) -> None:
        assert job_lists.count(cast.session, self.lint(cast)) == Count(1, whole=False)
        assert str(job_lists.count(cast.session, self.lint(cast))) == "1+"
        assert job_lists.count(cast.session, self.lint(cast, JobStatus.FAILED)) == Count(0)

    def found(self, cast: Cast, words: str, **more: Any) -> JobPage:
        jobs = job_lists.narrowed(job_lists.of_project(cast.web), JobFilter(words=words))
        return job_lists.page(cast.session, jobs, **more)

    def test_a_number_behind_a_hash_is_looked_up_however_old_the_job_is(self, cast: Cast, jobs: list[Job]) -> None:
        page = self.found(cast, f"#{jobs[0].id}")
        assert (list(page.jobs), page.after, page.upto) == ([jobs[0]], None, None)
        wanted = JobFilter((JobStatus.PENDING, JobStatus.FAILED), f"#{jobs[0].id}")
        one = job_lists.narrowed(job_lists.of_project(cast.web), wanted)
        assert job_lists.count(cast.session, one) == Count(1)
        assert list(self.found(cast, "#9" + "0" * 17).jobs) == []
        elsewhere = job_lists.narrowed(job_lists.of_project(cast.other), JobFilter(words=f"#{jobs[0].id}"))
        assert list(job_lists.page(cast.session, elsewhere).jobs) == []

    def test_of_bare_digits_the_number_comes_first_and_then_the_names_that_begin_so(
        self, cast: Cast, jobs: list[Job]
    ) -> None:
        digits = str(jobs[0].id)
        jobs[1].name = jobs[5].name = f"{digits}-bit"
        cast.session.flush()
        page = self.found(cast, digits)
        assert (list(page.jobs), page.after) == ([jobs[0], jobs[5]], jobs[4].id)
        page = self.found(cast, digits, after=page.after)
        assert (list(page.jobs), page.after) == ([jobs[1]], jobs[1].id)
        page = self.found(cast, digits, after=page.after)
        assert (list(page.jobs), page.after) == ([], None)

    def test_the_number_is_looked_up_in_pages_by_number_too(self, cast: Cast, jobs: list[Job]) -> None:
        digits = str(jobs[0].id)
        jobs[5].name = jobs[6].name = f"{digits}-bit"
        cast.session.flush()
        both = job_lists.narrowed(job_lists.of_project(cast.web), JobFilter(words=digits))
        pages = [job_paging.by_number(cast.session, both, offset=offset, limit=2) for offset in (0, 2)]
        assert [list(each.jobs) for each in pages] == [[jobs[0], jobs[6]], [jobs[5]]]
        assert [each.more for each in pages] == [True, False]

    def test_a_page_makes_three_queries_at_most(self, cast: Cast, jobs: list[Job]) -> None:
        lint = self.lint(cast)
        for after in (None, jobs[5].id):
            with asked(cast.session) as statements:
                job_lists.page(cast.session, lint, after=after)
            assert len(statements) <= 3  # the first look, a longer one, and the jobs


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
