"""What a process hears of, by which connection, and what it does while it hears nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from portal import background
from portal.domain.jobs.queue_news import Announcement
from portal.models import QueueScope
from tests import databases
from tests.api.machines import until
from tests.api.processes import Process
from tests.cast import Cast


class Listener:
    """Stands where the gate stands: it holds polls in these scopes, and keeps what it is told."""

    def __init__(self, *scopes: tuple[QueueScope, int]) -> None:
        self.scopes = list(scopes)
        self.heard: list[Announcement] = []
        self.runners: list[int | None] = []

    def queued(self, said: Announcement) -> None:
        self.heard.append(said)

    def changed(self, runner_id: int | None) -> None:
        self.runners.append(runner_id)

    def held_scopes(self) -> Sequence[tuple[QueueScope, int]]:
        return self.scopes


def test_who_hears_nothing_asks_the_database_each_time(
    own_database: str, postgres: databases.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a pooler in transaction mode: LISTEN succeeds, and nothing ever comes."""
    monkeypatch.setattr(background, "HEARD_WITHIN", 0.3)
    with postgres.copy() as elsewhere:
        process = Process(own_database, PORTAL_LISTEN_URL=elsewhere)
        process.background.start()
        try:
            until(lambda: "set PORTAL_LISTEN_URL" in caplog.text)
            assert not process.known.listening
            with process.session() as session:
                cast = Cast(session)
                machine = process.machine(cast.runner().token)
                value = machine.poll().headers["X-GitLab-Last-Update"]
                job = cast.job(tags=("docker",))
                assert machine.poll(last_update=value).json["id"] == job.id
        finally:
            process.background.stop()


def test_the_address_to_listen_at_may_be_another_one(own_database: str) -> None:
    with Process(own_database, PORTAL_LISTEN_URL=own_database) as process, process.session() as session:
        machine = process.machine(Cast(session).runner().token)
        for _ in range(3):
            machine.poll()
        with process.statements() as statements:
            assert machine.poll().status == 204
        assert statements == []


def test_who_holds_polls_is_told_of_jobs_and_of_runners(own_database: str) -> None:
    listener = Listener()
    with Process(own_database, listener) as process, process.session() as session:
        cast = Cast(session)
        issued = cast.runner()
        until(lambda: issued.runner.id in listener.runners)
        assert listener.runners[0] is None  # whoever was held before may have missed something
        cast.job(tags=("docker",))
        (said,) = until(lambda: listener.heard)
        assert (said.jobs, said.scopes[-1]) == (1, (QueueScope.PROJECT, cast.web.id))


def test_jobs_that_nobody_was_woken_for_are_found_within_half_a_minute(own_database: str) -> None:
    """The look itself, which is repeated; in scopes where nobody is held it finds nothing."""
    listener = Listener()
    process = Process(own_database, listener)
    try:
        with process.session() as session:
            cast = Cast(session)
            for tags in (("docker",), ("docker",), ("gpu",)):
                cast.job(tags=tags)
            group, project = (QueueScope.GROUP, cast.acme.id), (QueueScope.PROJECT, cast.web.id + 1)
        assert process.background.look_for_waiting() == 0
        listener.scopes = [group, project]
        assert process.background.look_for_waiting() == 2
        assert sorted((said.jobs, said.scopes) for said in listener.heard) == [(1, (group,)), (2, (group,))]
        assert background.LOOK_EVERY <= 30
    finally:
        process.close()
