"""What a job left, on its page: listed, downloaded, kept, deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from portal import artifact_files
from portal.addresses import url_in
from portal.artifact_files import artifact_store
from portal.database import db, now
from portal.domain.errors import Stale
from portal.domain.jobs import job_artifacts, job_erasure, job_logs, jobs
from portal.models import Job, JobArtifact
from portal.web import guards

Page = str | BaseResponse
FindJob = Callable[..., Job]


@dataclass(frozen=True, slots=True)
class ArtifactsView:
    """What `jobs/_artifacts.html` needs, as `left`. `asked_for` says whether the job was to leave any."""

    job: Job
    artifacts: Sequence[JobArtifact]
    asked_for: bool
    may_write: bool

    @property
    def total(self) -> int:
        """All of them together, in bytes."""
        return sum(each.size for each in self.artifacts)

    @property
    def expiring(self) -> bool:
        return any(each.expires_at for each in self.artifacts)


def shown(job: Job) -> ArtifactsView:
    """What the page of the job shows of them; the caller has asked who may see the job."""
    session = db.session()
    return ArtifactsView(
        job=job,
        artifacts=job_artifacts.of_job(session, job, now()),
        asked_for=bool(job.definition.config.get("artifacts")),
        may_write=jobs.may_write(session, guards.actor(), job),
    )


def download(job: Job, artifact_id: int) -> Response:
    """The file, to be saved."""
    return artifact_files.answer(job_artifacts.find(db.session(), job, artifact_id, now()))


def delete(job: Job, artifact_id: int) -> Page:
    """What is lost, and the button."""
    session = db.session()
    jobs.require_write(session, guards.actor(), job)
    artifact = job_artifacts.find(session, job, artifact_id, now())
    if request.method == "GET":
        return render_template("jobs/delete_artifact.html", scope=guards.scope(), job=job, artifact=artifact)
    name = artifact.filename
    gone = job_artifacts.delete_of(session, guards.actor(), job, now(), only=artifact_id)
    session.commit()
    job_artifacts.sweep_now(session, artifact_store(), now(), gone)
    session.commit()
    flash(f"{name} is deleted.")
    return _back_to(job.id)


def erase(job: Job) -> Page:
    """What is lost with the log and the artifacts, and the button."""
    session, number = db.session(), job.id
    jobs.require_write(session, guards.actor(), job)
    if request.method == "GET":
        log, left = job_logs.extent(session, number), shown(job)
        return render_template("jobs/erase.html", scope=guards.scope(), job=job, log=log, left=left)
    try:
        gone = job_erasure.erase(session, guards.actor(), job)
    except Stale as refused:
        session.rollback()
        flash(str(refused), "warning")
        return _back_to(number)
    session.commit()
    job_artifacts.sweep_now(session, artifact_store(), now(), gone)
    session.commit()
    flash("The log and the artifacts are erased.")
    return _back_to(number)


def keep(job: Job) -> BaseResponse:
    """Have everything stay as long as the job."""
    number = job.id
    job_artifacts.keep_for_ever(db.session(), guards.actor(), job, now())
    db.session.commit()
    flash("The artifacts stay as long as the job.")
    return _back_to(number)


def _back_to(job_id: int) -> BaseResponse:
    return redirect(url_in(guards.scope(), "jobs.show", job_id=job_id), 303)


def mount(blueprint: Blueprint, find: FindJob, at: str = "/<int:job_id>") -> None:
    """Give a project's blueprint of jobs what belongs to the artifacts of one, below the job's own page.

    `find` gets the number of the job, and returns it or refuses.
    """

    def artifact(artifact_id: int, **place: Any) -> Response:
        """One file."""
        return download(find(**place), artifact_id)

    def delete_artifact(artifact_id: int, **place: Any) -> Page:
        """Delete one file."""
        return delete(find(**place), artifact_id)

    @guards.recently
    def erase_job(**place: Any) -> Page:
        """Erase the log and all files."""
        return erase(find(**place))

    def keep_artifacts(**place: Any) -> BaseResponse:
        """Keep all of them."""
        return keep(find(**place))

    one = f"{at}/artifacts/<int:artifact_id>"
    blueprint.add_url_rule(one, "artifact", artifact)
    blueprint.add_url_rule(f"{one}/delete", "delete_artifact", delete_artifact, methods=["GET", "POST"])
    blueprint.add_url_rule(f"{at}/erase", "erase", erase_job, methods=["GET", "POST"])
    blueprint.add_url_rule(f"{at}/artifacts/keep", "keep_artifacts", keep_artifacts, methods=["POST"])
