"""One page of a list of jobs, or a stretch of it from a cursor on."""

from __future__ import annotations

from typing import cast

from portal.api import credentials
from portal.api.for_users import job_shapes
from portal.api.for_users.job_parameters import JobsListed
from portal.api.for_users.job_shapes import JobShape
from portal.api.for_users.operations import Answer
from portal.api.for_users.paging import MOST_COUNTED, Page, Stretch
from portal.database import db
from portal.domain.jobs import job_paging
from portal.domain.jobs.job_walks import JobList

ListedJobs = Answer[Page[JobShape]]


def listed(jobs: JobList, given: JobsListed, *, counted: bool = True) -> ListedJobs:
    """What is asked for of these jobs, which who asks may see; `counted` says whether the totals are told."""
    if given.pagination == "keyset":
        return Answer(cast("Page[JobShape]", _stretch(jobs, given)))
    session, size = db.session(), given.per_page
    found = job_paging.by_number(session, jobs, offset=given.offset, limit=size, oldest_first=given.sort == "asc")
    total = job_paging.count(session, jobs, most=MOST_COUNTED) if counted else None
    shown = job_shapes.some(session, credentials.actor(), found.jobs)
    return Answer(Page(shown, given, total, found.more, found.after))


def _stretch(jobs: JobList, given: JobsListed) -> Stretch[JobShape]:
    session = db.session()
    found = job_paging.by_cursor(
        session, jobs, after=given.cursor or None, limit=given.per_page, oldest_first=given.sort == "asc"
    )
    return Stretch(job_shapes.some(session, credentials.actor(), found.jobs), found.after)
