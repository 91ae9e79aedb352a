"""The background work of a server process with jobs: lost ones are given up, old ones are swept away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from portal import create_app
from portal.background import Background
from portal.database import PARTITIONS, now
from portal.domain.errors import NotFound
from portal.domain.jobs import job_partitions, job_rows, jobs, lost_jobs
from portal.domain.jobs.lost_jobs import Attention
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Job, JobArtifact, JobClass, JobDefinition, JobPartition, JobStatus
from tests import artifacts, databases
from tests.api.processes import Process
from tests.cast import SYSTEM, Cast
from tests.domain.clock import let_pass

UNTAGGED = RunnerSettings(run_untagged=True)


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    """A server process whose background work stands still, so that a test does it step by step."""
    process = Process(own_database)
    yield process
    process.close()


def taken(process: Process, number: int = 1) -> list[int]:
    """Jobs that a machine has got, and of which it has not spoken."""
    with process.session() as session:
        cast = Cast(session)
        token = cast.runner(settings=UNTAGGED).token
        for _ in range(number):
            cast.job()
    machine = process.machine(token)
    return [machine.ask_for_job().id for _ in range(number)]


def pass_time(process: Process, time: timedelta) -> None:
    with process.session() as session:
        let_pass(session, time)
        session.commit()


def listens_for(process: Process, time: timedelta) -> None:
    """As if the process had looked every half minute for so long."""
    process.background.attention, moment = Attention(), now()
    for steps in range(int(time.total_seconds() // 30), -1, -1):
        process.background.attention.since(moment - steps * timedelta(seconds=30))


def states(session: Session) -> list[JobStatus]:
    return [job.state for job in session.scalars(select(Job).order_by(Job.id))]


class TestLostJobs:
    def test_are_given_up_by_a_process_that_has_listened_long_enough(self, process: Process) -> None:
        taken(process, 2)
        assert process.background.give_up_lost_jobs() == 0
        pass_time(process, timedelta(minutes=1))
        assert process.background.give_up_lost_jobs() == 0  # it has just begun to listen
        listens_for(process, timedelta(seconds=60))
        assert process.background.give_up_lost_jobs() == 2
        with process.session() as session:
            assert states(session) == [JobStatus.PENDING] * 2

    def test_of_one_that_cannot_be_given_up_the_others_do_not_wait(
        self, process: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, _ = taken(process, 2)
        pass_time(process, timedelta(minutes=1))
        listens_for(process, timedelta(hours=1))
        with process.session() as session:
            session.execute(text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'a test refuses'; END $$"
            ))  # fmt: skip
            session.execute(text(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON ci_builds FOR EACH ROW WHEN (OLD.id = {first:d}) "
                "EXECUTE FUNCTION refuse()"
            ))  # fmt: skip
            session.commit()
        assert process.background.give_up_lost_jobs() == 1
        assert f"the lost job {first} could not be given up" in caplog.text
        with process.session() as session:
            assert states(session) == [JobStatus.RUNNING, JobStatus.PENDING]

    def test_one_that_its_machine_has_in_hands_is_left_alone(self, process: Process) -> None:
        (job_id,) = taken(process)
        pass_time(process, timedelta(minutes=1))
        listens_for(process, timedelta(hours=1))
        with process.session() as session:
            job_rows.hold(session, job_id)
            assert process.background.give_up_lost_jobs() == 0
        assert process.background.give_up_lost_jobs() == 1

    def test_after_a_look_that_failed_nobody_is_blamed_for_silence(self, process: Process) -> None:
        process.background.give_up_lost_jobs()
        broken = Background(create_app(databases.settings("postgresql:///nowhere?host=/nowhere")))
        broken.attention.since(now() - timedelta(seconds=30))
        with pytest.raises(OperationalError):
            broken.give_up_lost_jobs()
        moment = now()
        assert broken.attention.since(moment) == moment
        broken.engine.dispose()

    def test_the_few_that_run_are_found_by_their_index(self, process: Process) -> None:
        with process.session() as session:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            look = lost_jobs.Look(now(), now(), process.background.patience)
            query = look.losses().compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[0] for row in session.execute(text(f"EXPLAIN {query}")))
            assert "ix_ci_builds_running" in plan


class TestSweeping:
    def test_old_jobs_their_definitions_and_classes_go(self, process: Process) -> None:
        with process.session() as session:
            cast = Cast(session)
            for tags in ((), ("docker",)):
                jobs.cancel(session, SYSTEM, cast.job(tags=tags))
            waiting = cast.job(tags=("linux",))
            session.commit()
            waiting_id = waiting.id
        pass_time(process, timedelta(days=401))
        process.background.housekeeping.tidy_up()
        with process.session() as session:
            assert list(session.scalars(select(Job.id))) == [waiting_id]
            assert len(session.scalars(select(JobDefinition.id)).all()) == 1
            assert sorted(session.scalars(select(JobClass.tag_list))) == [[], ["linux"]]

    def test_never_keeps_them(self, own_database: str) -> None:
        app = create_app(databases.settings(own_database, PORTAL_JOBS_KEPT="never"))
        background = Background(app)
        with Session(background.engine) as session:
            jobs.cancel(session, SYSTEM, Cast(session).job())
            session.commit()
            let_pass(session, timedelta(days=5000))
            session.commit()
        background.housekeeping.tidy_up()
        with Session(background.engine) as session:
            assert len(session.scalars(select(Job.id)).all()) == 1
        background.engine.dispose()

    def test_artifacts_go_when_they_have_expired_their_files_too(self, process: Process) -> None:
        store = process.background.housekeeping.artifact_store
        with process.session() as session:
            job, _ = artifacts.running_job(session, Cast(session))
            artifacts.keep(session, store, job, expire_in="1 day")
            artifacts.keep(session, store, job, artifact_type="junit", artifact_format="gzip", expire_in="never")
            expires = session.scalars(select(JobArtifact.key).where(JobArtifact.expires_at.is_not(None))).one()
        pass_time(process, timedelta(days=2))
        process.background.housekeeping.tidy_up()
        with process.session() as session:
            assert list(session.scalars(select(JobArtifact.file_type))) == ["junit"]
        with pytest.raises(NotFound):
            store.open(expires, 5)

    def test_partitions_are_made_ahead_and_dropped_when_their_jobs_are_gone(self, process: Process) -> None:
        process.background.housekeeping.tidy_up()
        with process.session() as session:
            made = set(session.scalars(select(JobPartition.id)))
            assert job_partitions.number_of(now()) + job_partitions.MONTHS_AHEAD in made
            future = now() + timedelta(days=400)
            job_partitions.make_ahead(session, future)
            Cast(session).job()
            session.execute(Job.__table__.update().values(partition_id=job_partitions.number_of(future)))
            session.commit()
            job_partitions.drop_empty(session, future)
            session.commit()
            left = set(session.scalars(select(JobPartition.id)))
            named = text("SELECT relname FROM pg_class WHERE relname ~ :name AND relkind = 'r'")
            tables = set(session.scalars(named, {"name": f"^{PARTITIONS}[0-9]+$"}))
        assert tables == {f"{PARTITIONS}{number}" for number in left}
        assert job_partitions.FIRST in left
        assert job_partitions.number_of(now()) not in left - {job_partitions.FIRST}
