"""`/projects/:id/jobs/:job_id/artifacts`: what a job left, to download, to delete or to keep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from flask import Response

from portal import artifact_files
from portal.api import credentials
from portal.api.for_users import places
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.operations import Shape
from portal.api.for_users.parameters import Id, Parameters
from portal.artifact_files import artifact_store
from portal.database import db, now
from portal.domain.jobs import job_artifacts, jobs
from portal.models import Job, JobArtifact

ROOM = "Jobs"


class OneProjectsJob(Parameters):
    """A job of a project, which is named by its id or full path."""

    project: str
    job_id: Id


class ArtifactShape(Shape):
    """One file that a job left."""

    file_type: str
    size: int
    filename: str
    file_format: str


class KeptShape(Shape):
    """What a job left and keeps."""

    id: int
    artifacts_expire_at: datetime | None
    artifacts: list[ArtifactShape]


def shapes(artifacts: Sequence[JobArtifact]) -> list[ArtifactShape]:
    """Files as a job's attribute `artifacts` has them."""
    return [
        ArtifactShape(file_type=each.file_type, size=each.size, filename=each.filename, file_format=each.file_format)
        for each in artifacts
    ]


def expires_at(artifacts: Sequence[JobArtifact]) -> datetime | None:
    """A job's attribute `artifacts_expire_at`: when the first of its files goes; None when they all stay."""
    return min((each.expires_at for each in artifacts if each.expires_at is not None), default=None)


@operation(
    "GET",
    "/projects/<path:project>/jobs/<int:job_id>/artifacts",
    room=ROOM,
    refuses=(503,),
    reads=("Range",),
    also=(206,),
    media="application/octet-stream",
)
def download(given: OneProjectsJob) -> Response:
    """The archive that the job left, as a file."""
    job = _job(given)
    with looking_for("Artifacts"):
        artifact = job_artifacts.archive_of(db.session(), job.id, now())
        return artifact_files.answer(artifact)


@operation("DELETE", "/projects/<path:project>/jobs/<int:job_id>/artifacts", room=ROOM)
def delete(given: OneProjectsJob) -> None:
    """Delete all that the job left."""
    gone = job_artifacts.delete_of(db.session(), credentials.actor(), _job(given), now())
    db.session.commit()
    job_artifacts.sweep_now(db.session(), artifact_store(), now(), gone)
    db.session.commit()


@operation("POST", "/projects/<path:project>/jobs/<int:job_id>/artifacts/keep", room=ROOM)
def keep(given: OneProjectsJob) -> KeptShape:
    """Have all that the job left stay as long as the job."""
    job = _job(given)
    with looking_for("Artifacts"):
        job_artifacts.keep_for_ever(db.session(), credentials.actor(), job, now())
    kept = job_artifacts.of_job(db.session(), job, now())
    answer = KeptShape(id=job.id, artifacts_expire_at=expires_at(kept), artifacts=shapes(kept))
    db.session.commit()
    return answer


def _job(given: OneProjectsJob) -> Job:
    """The job, if who asks may see it. Raises NotFound or NotAllowed."""
    project = places.project(given.project)
    with looking_for("Job"):
        return jobs.find(db.session(), credentials.actor(), project, given.job_id)
