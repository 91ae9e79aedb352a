"""The artifacts of jobs: kept once, shown while they are there, deleted by people and by time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.errors import BadRequest, JobRefused, NotAllowed, NotFound, StoreUnreachable
from portal.domain.jobs import job_artifacts
from portal.domain.jobs.artifact_store import ArtifactStore, StoredFile
from portal.models import AuditEvent, Job, JobArtifact, JobStatus, Role
from tests.artifacts import files_in, running_job, settings, stored
from tests.cast import Cast
from tests.domain.queries import asked

USUAL = timedelta(days=30)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(settings(tmp_path))


@pytest.fixture
def job(session: Session, cast: Cast) -> Job:
    return running_job(session, cast)[0]


def keep(
    session: Session, store: ArtifactStore, job: Job, content: bytes = b"words", **label: str
) -> tuple[bool, StoredFile]:
    file = stored(session, store, content)
    wanted = job_artifacts.labelled(**label)
    kept = job_artifacts.keep(session, job, wanted, file, at=now(), usual=USUAL)
    session.commit()
    return kept, file


def of(session: Session, job: Job, later: timedelta = timedelta()) -> Sequence[JobArtifact]:
    return job_artifacts.of_job(session, job, now() + later)


class TestWhatARunnerSays:
    def test_what_it_does_not_say_is_as_in_gitlab(self) -> None:
        label = job_artifacts.labelled()
        assert (label.file_type, label.file_format, label.filename) == ("archive", "zip", "artifacts.zip")

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("artifacts.zip", "artifacts.zip"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\a.zip", "a.zip"),
            ("Übersicht 1.zip", "Übersicht 1.zip"),
            ("a\r\nSet-Cookie: b.zip", "aSet-Cookie: b.zip"),
            ("a\ud800.zip", "a.zip"),
            ("a\u202efdp.zip", "afdp.zip"),
            ("..", "junit.gz"),
            ("", "junit.gz"),
            ("x" * 300 + ".zip", "x" * 251 + ".zip"),
        ],
    )
    def test_a_file_is_called_by_the_last_part_of_its_name(self, given: str, shown: str) -> None:
        label = job_artifacts.labelled(artifact_type="junit", artifact_format="gzip", filename=given)
        assert label.filename == shown

    @pytest.mark.parametrize(
        "wrong",
        [
            {"artifact_type": "Archive"},
            {"artifact_type": "../x"},
            {"artifact_type": "x" * 33},
            {"artifact_format": "rar"},
            {"expire_in": "soon"},
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, wrong: dict[str, str]) -> None:
        with pytest.raises(BadRequest, match=next(iter(wrong))):
            job_artifacts.labelled(**wrong)


class TestKeeping:
    def test_a_file_is_noted_with_its_size_and_checksum(
        self, session: Session, store: ArtifactStore, job: Job
    ) -> None:
        kept, file = keep(session, store, job)
        [found] = of(session, job)
        assert kept
        assert (found.size, found.sha256, found.key) == (5, file.sha256, file.key)

    @pytest.mark.parametrize(
        ("said", "stays"), [("", USUAL), ("1 week", timedelta(weeks=1)), ("never", None)], ids=["", "week", "never"]
    )
    def test_it_stays_as_long_as_the_job_says_or_as_usual(
        self, session: Session, store: ArtifactStore, job: Job, said: str, stays: timedelta | None
    ) -> None:
        keep(session, store, job, expire_in=said)
        [found] = of(session, job)
        assert found.expires_at == (found.created_at + stays if stays else None)

    def test_the_same_file_again_is_no_second_one(self, session: Session, store: ArtifactStore, job: Job) -> None:
        _, first = keep(session, store, job)
        assert job_artifacts.is_kept(session, job, job_artifacts.labelled(), first.sha256)
        kept, second = keep(session, store, job)
        assert not kept
        assert [each.key for each in of(session, job)] == [first.key] != [second.key]

    def test_another_file_of_the_same_type_is_refused(self, session: Session, store: ArtifactStore, job: Job) -> None:
        _, first = keep(session, store, job)
        with pytest.raises(BadRequest, match="another file of the type archive"):
            keep(session, store, job, b"others")
        with pytest.raises(BadRequest):
            job_artifacts.is_kept(session, job, job_artifacts.labelled(), b"others")
        assert [each.key for each in of(session, job)] == [first.key]

    def test_files_of_several_types_lie_side_by_side_the_archive_first(
        self, session: Session, store: ArtifactStore, job: Job
    ) -> None:
        for kind in ("junit", "archive", "metadata"):
            keep(session, store, job, artifact_type=kind)
        assert [each.file_type for each in of(session, job)] == ["archive", "junit", "metadata"]

    def test_a_job_leaves_a_bounded_number_of_files(
        self, session: Session, store: ArtifactStore, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_artifacts, "MOST_FILES", 2)
        for kind in ("junit", "metadata"):
            keep(session, store, job, artifact_type=kind)
        job_artifacts.require_room(session, job, job_artifacts.labelled(artifact_type="junit"))  # sent again
        with pytest.raises(BadRequest, match="2 files"):
            job_artifacts.require_room(session, job, job_artifacts.labelled())

    @pytest.mark.parametrize("status", [JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.PENDING])
    def test_a_job_that_does_not_run_leaves_nothing_more(
        self, session: Session, store: ArtifactStore, job: Job, status: JobStatus
    ) -> None:
        job.status = status
        session.commit()
        with pytest.raises(JobRefused):
            keep(session, store, job)

    def test_one_that_is_canceling_still_does(self, session: Session, store: ArtifactStore, job: Job) -> None:
        job.status = JobStatus.CANCELING
        session.commit()
        assert keep(session, store, job)[0]


class TestReading:
    def test_what_has_expired_is_seen_by_nobody(self, session: Session, store: ArtifactStore, job: Job) -> None:
        keep(session, store, job, expire_in="1 hour")
        [artifact] = of(session, job)
        late = now() + timedelta(hours=1)
        assert of(session, job, timedelta(hours=1)) == []
        for look in (
            lambda: job_artifacts.find(session, job, artifact.id, late),
            lambda: job_artifacts.archive_of(session, job.id, late),
            lambda: job_artifacts.for_machine(session, job, job.id, late),
        ):
            with pytest.raises(NotFound):
                look()

    def test_an_artifact_is_found_by_its_own_job_only(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        [artifact] = of(session, job)
        other, _ = running_job(session, cast)
        assert job_artifacts.find(session, job, artifact.id, now()) is artifact
        with pytest.raises(NotFound):
            job_artifacts.find(session, other, artifact.id, now())

    def test_many_jobs_are_asked_for_with_one_query(self, session: Session, store: ArtifactStore, cast: Cast) -> None:
        them = [running_job(session, cast)[0] for _ in range(4)]
        for job in them[:3]:
            keep(session, store, job)
        ids = [job.id for job in them]
        with asked(session) as statements:
            found = job_artifacts.of_jobs(session, ids, now())
        assert set(found) == set(ids[:3])
        assert len(statements) == 1

    def test_a_machine_reads_what_its_job_left_and_what_it_needs_and_no_more(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        dependent, _ = running_job(session, cast, job, name="deploy")
        stranger, _ = running_job(session, cast, name="other")
        assert job_artifacts.for_machine(session, job, job.id, now()).job_id == job.id
        assert job_artifacts.for_machine(session, dependent, job.id, now()).job_id == job.id
        with pytest.raises(JobRefused, match="does not need"):
            job_artifacts.for_machine(session, stranger, job.id, now())
        with pytest.raises(JobRefused):
            job_artifacts.for_machine(session, job, dependent.id, now())  # needing goes one way
        with pytest.raises(NotFound):
            job_artifacts.for_machine(session, dependent, dependent.id, now())

    def test_the_payload_names_the_archives_that_are_there(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job, artifact_type="junit")
        keep(session, store, job, b"an archive", filename="out.zip")
        without, _ = running_job(session, cast)
        dependent, _ = running_job(session, cast, job, without)
        assert job_artifacts.dependencies_of(session, dependent) == [
            {"id": job.id, "name": "build", "artifacts_file": {"filename": "out.zip", "size": 10}}
        ]
        assert job_artifacts.dependencies_of(session, job) == []


class TestByPeople:
    def test_who_may_run_jobs_deletes_and_the_trail_tells_of_it(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast, tmp_path: Path
    ) -> None:
        keep(session, store, job)
        keep(session, store, job, artifact_type="junit")
        gone = job_artifacts.delete_of(session, cast.as_(cast.erin), job, now())
        session.commit()
        assert of(session, job) == []
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts_deleted")).one()
        assert event.changes["artifacts"] == [["archive: artifacts.zip", "junit: junit.zip"], []]
        job_artifacts.sweep_now(session, store, now(), gone)
        assert files_in(tmp_path) == []
        assert session.scalars(select(JobArtifact)).all() == []

    def test_one_of_several_can_be_deleted(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        keep(session, store, job, artifact_type="junit")
        junit = of(session, job)[1]
        job_artifacts.delete_of(session, cast.as_(cast.erin), job, now(), only=junit.id)
        assert [each.file_type for each in of(session, job)] == ["archive"]
        with pytest.raises(NotFound):
            job_artifacts.delete_of(session, cast.as_(cast.erin), job, now(), only=junit.id)

    def test_nothing_to_delete_is_no_event(self, session: Session, job: Job, cast: Cast) -> None:
        assert job_artifacts.delete_of(session, cast.as_(cast.erin), job, now()) == []
        assert session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts_deleted")).all() == []

    def test_a_reporter_may_not_and_a_stranger_sees_nothing(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        frank = cast.person("frank")
        cast.member(frank, cast.web, Role.REPORTER)
        for who, refusal in ((frank, NotAllowed), (cast.charlie, NotFound)):
            with pytest.raises(refusal):
                job_artifacts.delete_of(session, cast.as_(who), job, now())
            with pytest.raises(refusal):
                job_artifacts.keep_for_ever(session, cast.as_(who), job, now())
        assert len(of(session, job)) == 1

    def test_what_a_protected_job_left_is_deleted_by_who_may_run_such(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        job.ref_protected = True
        session.commit()
        with pytest.raises(NotAllowed):
            job_artifacts.delete_of(session, cast.as_(cast.erin), job, now())
        assert job_artifacts.delete_of(session, cast.as_(cast.bob), job, now())

    def test_what_is_kept_for_ever_stays_with_its_job(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job)
        keep(session, store, job, artifact_type="junit", expire_in="never")
        assert job_artifacts.keep_for_ever(session, cast.as_(cast.erin), job, now()) == 1
        assert job_artifacts.keep_for_ever(session, cast.as_(cast.erin), job, now()) == 0
        events = session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts_kept")).all()
        assert [event.changes["artifacts"][1] for event in events] == [["archive: artifacts.zip"]]
        assert [each.expires_at for each in of(session, job)] == [None, None]

    def test_what_has_expired_cannot_be_kept(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast
    ) -> None:
        keep(session, store, job, expire_in="1 min")
        with pytest.raises(NotFound, match="expired"):
            job_artifacts.keep_for_ever(session, cast.as_(cast.erin), job, now() + timedelta(minutes=2))

    def test_who_erases_a_job_takes_all_of_it(self, session: Session, store: ArtifactStore, job: Job) -> None:
        keep(session, store, job)
        keep(session, store, job, artifact_type="junit", expire_in="1 min")
        assert len(job_artifacts.erase(session, job)) == 2
        assert of(session, job) == []


class Broken(ArtifactStore):
    """A store that deletes nothing."""

    def delete(self, key: str) -> None:
        raise StoreUnreachable


class TestSweeping:
    def swept(self, session: Session, store: ArtifactStore, at: datetime | None = None) -> int:
        gone = job_artifacts.sweep(session, store, at or now())
        session.commit()
        return gone

    def test_expired_files_go_and_others_stay(
        self, session: Session, store: ArtifactStore, job: Job, tmp_path: Path
    ) -> None:
        keep(session, store, job, expire_in="1 hour")
        keep(session, store, job, artifact_type="junit")
        assert self.swept(session, store) == 0
        assert self.swept(session, store, now() + timedelta(hours=2)) == 1
        assert len(files_in(tmp_path)) == len(session.scalars(select(JobArtifact)).all()) == 1

    def test_the_files_of_a_job_that_is_gone_go_as_well(
        self, session: Session, store: ArtifactStore, job: Job, tmp_path: Path
    ) -> None:
        keep(session, store, job)
        session.execute(text("DELETE FROM ci_builds WHERE id = :id"), {"id": job.id})
        session.commit()
        assert self.swept(session, store) == 1
        assert files_in(tmp_path) == []

    def test_while_the_store_does_not_answer_the_rows_stay(
        self, session: Session, store: ArtifactStore, job: Job, tmp_path: Path
    ) -> None:
        keep(session, store, job, expire_in="1 hour")
        with pytest.raises(StoreUnreachable):
            self.swept(session, Broken(settings(tmp_path)), now() + timedelta(hours=2))
        session.rollback()
        assert len(of(session, job)) == 1
        assert self.swept(session, store, now() + timedelta(hours=2)) == 1

    def test_what_somebody_deletes_while_it_does_not_answer_goes_later(
        self, session: Session, store: ArtifactStore, job: Job, cast: Cast, tmp_path: Path
    ) -> None:
        keep(session, store, job)
        gone = job_artifacts.delete_of(session, cast.as_(cast.erin), job, now())
        session.commit()
        job_artifacts.sweep_now(session, Broken(settings(tmp_path)), now(), gone)
        session.commit()
        assert of(session, job) == []
        assert self.swept(session, store) == 1
        assert files_in(tmp_path) == []

    def test_it_is_done_in_batches(self, session: Session, store: ArtifactStore, job: Job) -> None:
        for kind in ("a", "b", "c"):
            keep(session, store, job, artifact_type=kind, expire_in="1 min")
        late = now() + timedelta(hours=1)
        assert [job_artifacts.sweep(session, store, late, batch=2) for _ in range(3)] == [2, 1, 0]

    def test_a_file_that_no_row_names_goes_after_a_day(
        self, session: Session, store: ArtifactStore, job: Job, tmp_path: Path
    ) -> None:
        _, named = keep(session, store, job)
        stored(session, store, b"orphaned")
        assert job_artifacts.delete_orphans(session, store, now()) == 0
        assert job_artifacts.delete_orphans(session, store, now() + timedelta(days=1, minutes=1)) == 1
        assert [path.name for path in files_in(tmp_path)] == [named.key.rpartition("/")[2]]

    def test_the_files_of_another_database_are_left_alone(
        self, session: Session, store: ArtifactStore, tmp_path: Path
    ) -> None:
        with store.receive(5) as incoming:
            incoming.write(b"other")
            store.put(incoming, "f" * 16)
        assert job_artifacts.delete_orphans(session, store, now() + timedelta(days=9)) == 0
        assert len(files_in(tmp_path)) == 1
