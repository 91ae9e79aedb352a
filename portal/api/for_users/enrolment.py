"""What an enrolment key opens: it creates runners, and reads those that it made. Nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from flask import g

from portal.api import credentials, idempotency, rate_limits
from portal.api.for_users import runner_shapes
from portal.api.for_users.door import looking_for
from portal.api.for_users.runner_creation import Creation
from portal.api.for_users.runner_shapes import RunnerDetails
from portal.api.for_users.shapes import GroupBasic, group_basic, projects_in_short
from portal.database import db
from portal.domain.enrolment import enrolment_use
from portal.domain.enrolment.enrolment_use import Asked
from portal.domain.errors import EnrolmentRefused
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import EnrolmentKey
from portal.requests import client_address

TYPES = {word: each for each, word in runner_shapes.TYPES.items()}


def create_with_key(key: EnrolmentKey, given: Creation) -> IssuedRunner:
    """A new runner of the key's, for `POST /user/runners`; what is asked for may leave everything to its template.

    Raises EnrolmentKeyOver, EnrolmentRefused, Invalid, LimitReached, AlreadyIssued and KeyReused.
    """
    asked = asked_of(given)
    once = idempotency.once(asdict(asked))
    with _counted():
        return enrolment_use.enrol(
            db.session(),
            key,
            asked,
            address=client_address(),
            request_id=g.request_id,
            request_key=once.request_key,
            request_digest=once.request_digest,
        )


def asked_of(given: Creation) -> Asked:
    """What the request says in so many words; what it leaves out or sends as null it leaves to the template."""
    return Asked(
        description=given.description,
        maintenance_note=given.maintenance_note,
        paused=given.paused,
        tags=given.tag_list if given.given("tag_list") else None,
        run_untagged=given.run_untagged,
        locked=given.locked,
        protected=None if given.access_level is None else given.access_level == "ref_protected",
        maximum_timeout=given.maximum_timeout,
        runner_type=TYPES.get(given.runner_type or ""),
        group_id=given.group_id,
        project_id=given.project_id,
        tokens_end=given.token_expires_at is not None,
    )


def details(key: EnrolmentKey, runner_id: int) -> RunnerDetails:
    """One runner that the key made, for tools that look at what they created. Raises NotFound or EnrolmentRefused.

    It tells of the runner and of the scope that is the key's own: nobody's name, no note, and no other project.
    """
    with looking_for("Runner"), _counted():
        runner = enrolment_use.made_by(db.session(), key, runner_id, address=client_address())
    told = runner_shapes.details(db.session(), credentials.actor(), runner)
    mine: dict[str, Any] = {"created_by": None, "maintenance_note": None}
    if runner.group is not None and runner.group_id == key.group_id:
        mine["groups"] = [GroupBasic(**group_basic(runner.group))]
    if runner.project is not None and runner.project_id == key.project_id:
        mine["projects"] = projects_in_short([runner.project])
    return told.model_copy(update=mine)


@contextmanager
def _counted() -> Iterator[None]:
    """Count a refused use as one of a credential that is no good: who guesses networks is slowed down."""
    try:
        yield
    except EnrolmentRefused:
        rate_limits.count_refused()
        raise
