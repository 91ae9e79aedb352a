"""`/jobs/:id/artifacts`: a runner brings the files that its job left, and fetches those of the jobs it needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from flask import Response, jsonify, request
from sqlalchemy import select

from portal import artifact_files
from portal.api import params, uploads
from portal.api.for_runners import job_door
from portal.api.for_runners.door import blueprint
from portal.artifact_files import artifact_store
from portal.database import db, now
from portal.domain import tokens
from portal.domain.errors import CredentialMissing, Refusal, StoreUnreachable, TooLarge
from portal.domain.jobs import job_artifacts
from portal.domain.jobs.artifact_store import Incoming, StoredFile
from portal.domain.jobs.job_artifacts import Label
from portal.models import Job
from portal.requests import settings


@blueprint.post("/jobs/<int:job_id>/artifacts/authorize")
def authorize_artifacts(job_id: int) -> Response:
    """Whether an upload would be taken: 200, 403, or 413 for a `filesize` that is too large."""
    _running(job_id)
    given = params.read() or request.args
    job_artifacts.labelled(
        artifact_type=params.text(given, "artifact_type"), artifact_format=params.text(given, "artifact_format")
    )
    limit = settings().artifact_limit
    if (params.number(given, "filesize") or 0) > limit:
        raise TooLarge(f"The artifact is larger than the {limit} bytes that this portal takes.")
    return jsonify(MaximumSize=limit)


@blueprint.post("/jobs/<int:job_id>/artifacts")
def upload_artifacts(job_id: int) -> Response:
    """Take one file, in the part `file` of a form; what it is stands in the address, or in fields of the form.

    201, also for the same file sent again. 403 when the job is over, 413 when it is too large, both as soon as they
    are known, and 503 when the store does not answer: the runner then sends it again.
    """
    job = _running(job_id)
    job_artifacts.require_room(db.session(), job, _label(request.args))
    db.session.rollback()  # the upload may take long, and is to keep no connection meanwhile
    limit = settings().artifact_limit
    with artifact_store().receive(limit) as incoming:
        came = uploads.read("file", incoming.write, limit=limit + uploads.AROUND)
        label = _label({**came.fields, **request.args}, came.filename)
        _keep(job_id, label, incoming)
    answer = jsonify(message="201 Created")
    answer.status_code = 201
    return answer


def _label(given: Mapping[str, str], filename: str = "") -> Label:
    return job_artifacts.labelled(
        artifact_type=params.text(given, "artifact_type"),
        artifact_format=params.text(given, "artifact_format"),
        expire_in=params.text(given, "expire_in"),
        filename=filename,
    )


def _keep(job_id: int, label: Label, incoming: Incoming) -> None:
    """Store what has come, and note it; the job is asked for again, since it may be over by now."""
    session = db.session()
    job = _running(job_id)
    job_artifacts.require_room(session, job, label)
    if job_artifacts.is_kept(session, job, label, incoming.sha256):
        return
    mark = job_artifacts.mark_of(session)
    session.rollback()
    file = artifact_store().put(incoming, mark)
    try:
        kept = job_artifacts.keep(session, _running(job_id), label, file, at=now(), usual=settings().artifacts_kept)
    except Refusal:
        _drop(file)
        raise
    db.session.commit()
    if not kept:
        _drop(file)


def _drop(file: StoredFile) -> None:
    """Delete a file that no row names; where that fails the housekeeping does it."""
    with suppress(StoreUnreachable):
        artifact_store().delete(file.key)


@blueprint.get("/jobs/<int:job_id>/artifacts")
def download_artifacts(job_id: int) -> Response:
    """The archive that a job left, for the machine that runs that job, or one that needs it.

    401 without a token, 403 for one that opens nothing or not this, 404 when there is nothing.
    """
    holder = _holder()
    artifact = job_artifacts.for_machine(db.session(), holder, min(job_id, job_door.LARGEST_ID), now())
    return artifact_files.answer(artifact)


def _running(job_id: int) -> Job:
    """The job, whose token stands in the header: the body is large and is read later. Raises JobRefused."""
    return job_door.job_of_request(min(job_id, job_door.LARGEST_ID))


def _holder() -> Job:
    """The job whose token was sent, whichever job's files are asked for. Raises CredentialMissing, JobRefused."""
    token = request.headers.get("Job-Token", "")
    if not token:
        raise CredentialMissing("Send the job's token in the header JOB-TOKEN.")
    number = db.session.scalar(select(Job.id).where(Job.token_digest == tokens.digest(token)))
    return job_door.job_of_request(number or 0)
