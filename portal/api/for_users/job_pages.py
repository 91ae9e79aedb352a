"""One page of a list of jobs, or a stretch of it from a cursor on."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Select

from portal.api import credentials
from portal.api.for_users import job_shapes
from portal.api.for_users.job_parameters import JobsListed
from portal.api.for_users.job_shapes import JobShape
from portal.api.for_users.operations import Answer
from portal.api.for_users.paging import MOST_COUNTED, Page, Stretch
from portal.database import db
from portal.domain.jobs import job_paging
from portal.models import Job

ListedJobs = Answer[Page[JobShape]]


def listed(query: Select[Job], given: JobsListed, *, counted: bool = True) -> ListedJobs:
    """What is asked for of these jobs, which who asks may see; `counted` says whether the totals are told."""
    if given.pagination == "keyset":
        return Answer(cast("Page[JobShape]", _stretch(query, given)))
    session, size = db.session(), given.per_page
    found = job_paging.by_number(
        session, query, offset=given.offset, limit=size + 1, oldest_first=given.sort == "asc"
    )
    total = job_paging.count(session, query, most=MOST_COUNTED) if counted else None
    shown = job_shapes.some(session, credentials.actor(), found[:size])
    return Answer(Page(shown, given, total, more=len(found) > size))


def _stretch(query: Select[Job], given: JobsListed) -> Stretch[JobShape]:
    session = db.session()
    found = job_paging.by_cursor(
        session, query, after=given.cursor or None, limit=given.per_page, oldest_first=given.sort == "asc"
    )
    return Stretch(job_shapes.some(session, credentials.actor(), found.jobs), found.after)
