"""What the house tests share: one thing of each kind, for the addresses of all pages."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import deletions
from portal.domain.jobs import job_templates
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.runners import runners
from portal.models import AccessToken, Role, RunnerManager, UserIdentity
from tests.artifacts import left_by
from tests.cast import JOB_VAULT, Cast


@pytest.fixture
def places(session: Session, cast: Cast) -> dict[str, Any]:
    """What to put into the addresses: things that exist, seen by an administrator."""
    issued = cast.runner(cast.web)
    runner = issued.runner
    manager = RunnerManager(runner_id=runner.id, system_xid="s_1")
    session.add(manager)
    identity = UserIdentity(user_id=cast.dana.id, issuer="https://sso.example.com", subject="1")
    session.add(identity)
    cast.access_token(cast.dana)  # only who has a token rotates it
    made = cast.enrolment_key(cast.dana, cast.web)
    key = made.record
    cast.member(cast.erin, cast.web, Role.DEVELOPER)
    gone = cast.runner(cast.web).runner
    deletion = deletions.begin(session, cast.as_(cast.dana), "runners", "one runner")
    runners.delete_runner(session, cast.as_(cast.dana), gone, deletion=deletion)
    wanted = Wanted(Act.PAUSE)
    bulk_act = bulk_acts.draft(session, cast.as_(cast.dana), scopes.INSTANCE, wanted, {runner.id})
    job, check = cast.job(), cast.check(runner)
    artifact = left_by(session, job)
    nightly = NewJob(name="nightly", script=("make",))
    template = job_templates.create(session, cast.as_(cast.dana), cast.web, nightly, JOB_VAULT)
    session.commit()
    return {
        "job_id": job.id,
        "artifact_id": artifact.id,
        "room": "runners",  # of the API's reference
        "check_id": check.id,
        "manager_id": manager.id,
        "template_id": template.id,
        "system_id": "s_1",
        "deletion_id": deletion.id,
        "deleted_runner_id": gone.id,
        "group_path": "acme",
        "project_path": "acme/web",
        "group": "acme",
        "project": "acme/web",
        "user_id": cast.erin.id,
        "runner_id": runner.id,
        "project_id": cast.web.id,
        "token_id": issued.record.id,
        "session_id": 1,
        "act_id": bulk_act.id,
        "identity_id": identity.id,
        "key_id": key.id,
        "enrolment key": made.token,
        "access_token_id": session.scalars(select(AccessToken.id)).one(),
    }
