"""The artifacts of jobs: which files a job left, who reads them, and when they go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import ColumnElement, String, cast, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, BadRequest, JobRefused, NotFound, StoreUnreachable
from portal.domain.jobs import artifact_expiry, jobs
from portal.domain.jobs.artifact_store import ArtifactStore, StoredFile
from portal.models import Job, JobArtifact, JobStatus, job_dependencies

ARCHIVE = "archive"  # the type that other jobs download
FORMATS = {"zip": ".zip", "gzip": ".gz", "raw": "", "zipzstd": ".zip", "tarzstd": ".tar.zst"}  # gitlab-runner's
MOST_FILES = 64  # of one job
LONGEST_FILENAME = 255
BATCH = 100
ORPHANED_AFTER = timedelta(days=1)  # no upload takes so long; a file that no row names by then is nobody's
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Label:
    """What a runner says of a file that it brings."""

    file_type: str
    file_format: str
    filename: str
    expire_in: str = ""


def labelled(*, artifact_type: str = "", artifact_format: str = "", filename: str = "", expire_in: str = "") -> Label:
    """What the runner says, checked, with GitLab's defaults: an archive, as zip. Raises BadRequest."""
    file_type, file_format = artifact_type or ARCHIVE, artifact_format or "zip"
    if not _TYPE.fullmatch(file_type):
        raise BadRequest("artifact_type must be a word such as archive, metadata or junit")
    if file_format not in FORMATS:
        raise BadRequest(f"artifact_format must be one of {', '.join(FORMATS)}")
    artifact_expiry.read(expire_in, None)
    return Label(file_type, file_format, _filename(filename, file_type, file_format), expire_in)


def _filename(given: str, file_type: str, file_format: str) -> str:
    """The last part of the name, as far as it can be printed: the client chose it, and a browser will save it."""
    name = PurePosixPath(given.replace("\\", "/")).name
    name = "".join(each for each in name if each.isprintable()).encode("utf-8", "ignore").decode().strip()
    if name.strip(".") == "":
        name = ("artifacts" if file_type == ARCHIVE else file_type) + FORMATS[file_format]
    return name[-LONGEST_FILENAME:]


def require_room(session: Session, job: Job, label: Label) -> None:
    """Refuse a file that cannot be kept before it is read. Raises BadRequest."""
    count = select(func.count()).select_from(JobArtifact).where(JobArtifact.job_id == job.id)
    if (session.scalar(count.where(JobArtifact.file_type != label.file_type)) or 0) >= MOST_FILES:
        raise BadRequest(f"This job has left {MOST_FILES} files already, which is as many as one may.")


def is_kept(session: Session, job: Job, label: Label, sha256: bytes) -> bool:
    """Whether the job has left exactly this file already, as it has when an upload is sent again.

    Raises BadRequest when it has left another one of this type.
    """
    own = (JobArtifact.job_id == job.id) & (JobArtifact.file_type == label.file_type)
    found = session.scalar(select(JobArtifact.sha256).where(own))
    if found is not None and found != sha256:
        raise BadRequest(f"This job has left another file of the type {label.file_type} already.")
    return found is not None


def keep(
    session: Session, job: Job, label: Label, file: StoredFile, *, at: datetime, usual: timedelta | None
) -> bool:
    """Note that this file is the job's. `usual` is how long it stays when the job does not say it; None for ever.

    False when the same file was noted meanwhile, so that this one is not needed. Raises BadRequest when that was
    another file, and JobRefused for a job that is over or gone.
    """
    going_on = Job.status.in_((JobStatus.RUNNING, JobStatus.CANCELING)), Job.erased_at.is_(None)
    held = select(Job.id).where(Job.id == job.id, *going_on).with_for_update(read=True, key_share=True)
    if session.scalar(held) is None:
        raise JobRefused("This job is over, so it leaves no more files.")
    stays = artifact_expiry.read(label.expire_in, usual)
    row = insert(JobArtifact).values(
        job_id=job.id,
        file_type=label.file_type,
        file_format=label.file_format,
        filename=label.filename,
        size=file.size,
        sha256=file.sha256,
        key=file.key,
        created_at=at,
        expires_at=at + stays if stays else None,
    )
    once = row.on_conflict_do_nothing(index_elements=["job_id", "file_type"]).returning(JobArtifact.id)
    if session.scalar(once) is not None:
        return True
    is_kept(session, job, label, file.sha256)
    return False


def _there(at: datetime) -> ColumnElement[bool]:
    """What has not expired; from that moment on nobody sees it, whenever it is swept away."""
    return or_(JobArtifact.expires_at.is_(None), JobArtifact.expires_at > at)


def of_job(session: Session, job: Job, at: datetime) -> Sequence[JobArtifact]:
    """What the job has left and is still there, the archive first."""
    return of_jobs(session, [job.id], at).get(job.id, [])


def of_jobs(session: Session, job_ids: Iterable[int], at: datetime) -> dict[int, list[JobArtifact]]:
    """The same of several jobs, by their numbers, with one query."""
    query = select(JobArtifact).where(JobArtifact.job_id.in_(set(job_ids)), _there(at))
    found: dict[int, list[JobArtifact]] = {}
    for artifact in session.scalars(query.order_by(JobArtifact.file_type != ARCHIVE, JobArtifact.id)):
        assert artifact.job_id is not None  # noqa: S101  (for the type checker)
        found.setdefault(artifact.job_id, []).append(artifact)
    return found


def find(session: Session, job: Job, artifact_id: int, at: datetime) -> JobArtifact:
    """One artifact of a job that the actor was shown already. Raises NotFound."""
    own = JobArtifact.id == artifact_id, JobArtifact.job_id == job.id
    found = session.scalar(select(JobArtifact).where(*own, _there(at)))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def archive_of(session: Session, job_id: int, at: datetime) -> JobArtifact:
    """The archive that the job left. Raises NotFound when it left none, or when it has expired or was deleted."""
    own = JobArtifact.job_id == job_id, JobArtifact.file_type == ARCHIVE
    found = session.scalar(select(JobArtifact).where(*own, _there(at)))
    if found is None:
        raise NotFound(f"The job #{job_id} has no artifacts: it left none, or they have expired or were deleted.")
    return found


def for_machine(session: Session, holder: Job, job_id: int, at: datetime) -> JobArtifact:
    """The archive of a job, for the machine that runs `holder`: of that job itself, or of one that it needs.

    Raises JobRefused for any other job, and NotFound.
    """
    needed = exists().where(job_dependencies.c.job_id == holder.id, job_dependencies.c.needs_id == job_id)
    if job_id != holder.id and not session.scalar(select(needed)):
        raise JobRefused(f"The job #{holder.id} does not need the job #{job_id}, so it may not have its artifacts.")
    return archive_of(session, job_id, at)


def dependencies_of(session: Session, job: Job) -> list[dict[str, Any]]:
    """What the machine that runs the job downloads first, as the payload of a job has it (reference/wire.md 6).

    The token in the payload is the job's own, which opens them (`for_machine`). Jobs without an archive are left out.
    """
    query = (
        select(Job.id, Job.name, JobArtifact.filename, JobArtifact.size)
        .join(JobArtifact, JobArtifact.job_id == Job.id)
        .join(job_dependencies, job_dependencies.c.needs_id == Job.id)
        .where(job_dependencies.c.job_id == job.id, JobArtifact.file_type == ARCHIVE, _there(now()))
        .order_by(Job.id)
    )
    return [
        {"id": id_, "name": name, "artifacts_file": {"filename": filename, "size": size}}
        for id_, name, filename, size in session.execute(query)
    ]


def delete_of(session: Session, actor: Actor, job: Job, at: datetime, only: int | None = None) -> list[int]:
    """Delete what the job left, or the one artifact with this number. Nobody sees it any more.

    The files go afterwards, by `sweep` with the numbers that are returned. Raises NotFound, or NotAllowed.
    """
    jobs.require_write(session, actor, job)
    query = select(JobArtifact).where(JobArtifact.job_id == job.id, _there(at)).order_by(JobArtifact.id)
    if only is not None:
        query = query.where(JobArtifact.id == only)
    gone = session.scalars(query.with_for_update()).all()
    if not gone and only is not None:
        raise NotFound(NOTHING_HERE)
    if gone:
        told = {"job": (job.id, job.id), "artifacts": ([_described(each) for each in gone], [])}
        audit.record(session, actor, "artifacts_deleted", job, jobs.scope_of(job), told)
    for artifact in gone:
        artifact.job_id = None
    session.flush()
    return [artifact.id for artifact in gone]


def _described(artifact: JobArtifact) -> str:
    return f"{artifact.file_type}: {artifact.filename}"


def keep_for_ever(session: Session, actor: Actor, job: Job, at: datetime) -> int:
    """Have what the job left stay as long as the job. Returns of how many files that is news.

    Raises NotAllowed, and NotFound, also when there is nothing to keep any more.
    """
    jobs.require_write(session, actor, job)
    query = select(JobArtifact).where(JobArtifact.job_id == job.id, _there(at)).order_by(JobArtifact.id)
    found = session.scalars(query.with_for_update()).all()
    if not found:
        raise NotFound("This job has no artifacts: it left none, or they have expired or were deleted.")
    expiring = [artifact for artifact in found if artifact.expires_at is not None]
    if expiring:
        told = {"job": (job.id, job.id), "artifacts": (None, [_described(each) for each in expiring])}
        audit.record(session, actor, "artifacts_kept", job, jobs.scope_of(job), told)
    for artifact in expiring:
        artifact.expires_at = None
    session.flush()
    return len(expiring)


def erase(session: Session, job: Job) -> list[int]:
    """Take everything from the job that it left, for whoever erases the job and tells of that.

    The files go afterwards, by `sweep` with the numbers that are returned.
    """
    taken = update(JobArtifact).where(JobArtifact.job_id == job.id).values(job_id=None).returning(JobArtifact.id)
    return list(session.scalars(taken.execution_options(synchronize_session=False)))


def sweep(
    session: Session, store: ArtifactStore, at: datetime, *, only: Collection[int] | None = None, batch: int = BATCH
) -> int:
    """Delete at most `batch` files that have expired or whose job is gone, and then their rows. Returns how many.

    In this order, so that a file of which nothing is known any more is never left. What others hold waits for the
    next round. Raises StoreUnreachable; until the store answers the rows stay.
    """
    over = or_(JobArtifact.expires_at <= at, JobArtifact.job_id.is_(None))
    query = select(JobArtifact.id, JobArtifact.key).where(over)
    if only is not None:
        query = query.where(JobArtifact.id.in_(only))
    rows = session.execute(query.order_by(JobArtifact.id).limit(batch).with_for_update(skip_locked=True)).all()
    for row in rows:
        store.delete(row.key)
    if rows:
        session.execute(delete(JobArtifact).where(JobArtifact.id.in_([row.id for row in rows])))
    return len(rows)


def sweep_now(session: Session, store: ArtifactStore, at: datetime, ids: Collection[int]) -> None:
    """The same at once, for what somebody has just deleted. A store that does not answer leaves it for later."""
    try:
        while ids and sweep(session, store, at, only=ids):
            pass
    except StoreUnreachable:
        return


def mark_of(session: Session) -> str:
    """What the keys of this database's files begin with: 16 hexadecimal digits.

    A copy of the database on another server has another one, so its clean-up passes over the original's files.
    """
    server = select(func.pg_control_system().table_valued("system_identifier").c.system_identifier).scalar_subquery()
    own = session.execute(select(cast(server, String), func.current_database())).one()
    return hashlib.sha256("/".join(own).encode()).hexdigest()[:16]


def delete_orphans(session: Session, store: ArtifactStore, at: datetime) -> int:
    """Delete files that no row names: the portal ended between storing them and noting it. Returns how many.

    It looks at every file of this database. Raises StoreUnreachable.
    """
    gone = 0
    for keys in store.keys(mark_of(session), before=at - ORPHANED_AFTER):
        known = set(session.scalars(select(JobArtifact.key).where(JobArtifact.key.in_(keys))))
        for key in keys:
            if key not in known:
                store.delete(key)
                gone += 1
    return gone
