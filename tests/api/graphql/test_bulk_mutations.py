"""Mutations of several runners at once: what one may is done, the rest is told."""

from sqlalchemy import select

from portal.models import Deletion, Runner
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import Asker, gid
from tests.cast import Cast

DELETED = "deletedCount deletedIds"
PAUSED = "updatedCount updatedRunners { id paused userPermissions { updateRunner } }"


def ids_of(*runners: Runner) -> list[str]:
    return [gid("Ci::Runner", each.id) for each in runners]


def test_what_one_may_delete_is_deleted_as_one_act(cast: Cast, asker_of: AskerOf) -> None:
    mine = [cast.runner(cast.acme).runner, cast.runner(cast.web).runner]
    other = cast.runner(cast.other).runner
    payload = asker_of(cast.alice).change("bulkRunnerDelete", DELETED, ids=ids_of(mine[1], other, mine[0]))
    assert (payload["deletedCount"], payload["deletedIds"]) == (2, ids_of(*mine))
    assert payload["errors"] == [f"You may not delete these runners, or they do not exist: #{other.id}."]
    (deletion,) = cast.session.scalars(select(Deletion)).all()
    assert (deletion.kind, deletion.name) == ("runners", "2 runners")
    assert cast.session.scalar(select(Runner).where(Runner.id == other.id)) is not None


def test_one_that_is_deleted_alone_goes_by_its_own_name(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    asker_of(cast.alice).change("bulkRunnerDelete", DELETED, ids=ids_of(runner))
    (deletion,) = cast.session.scalars(select(Deletion)).all()
    assert (deletion.kind, deletion.name) == ("runner", runner.title)


def test_without_ids_nothing_is_done(cast: Cast, asker_of: AskerOf) -> None:
    nothing = {"clientMutationId": None, "errors": [], "deletedCount": None, "deletedIds": None}
    assert asker_of(cast.alice).change("bulkRunnerDelete", DELETED) == nothing
    payload = asker_of(cast.alice).change("bulkRunnerDelete", DELETED, ids=[])
    assert (payload["deletedCount"], payload["deletedIds"], payload["errors"]) == (0, [], [])


def test_who_may_delete_none_of_them_is_told(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    runner = cast.runner(cast.acme).runner
    for asker in (asker_of(cast.bob), asker_of(cast.charlie), visitor):
        payload = asker.change("bulkRunnerDelete", DELETED, ids=[*ids_of(runner), gid("Ci::Runner", 999_999)])
        assert (payload["deletedCount"], payload["deletedIds"]) == (0, [])
        assert payload["errors"] == ["You may not delete any of these runners."]
    assert cast.session.scalars(select(Deletion)).all() == []


def test_fifty_are_the_most(cast: Cast, asker_of: AskerOf) -> None:
    runners = [cast.runner(cast.acme).runner for _ in range(3)]
    missing = [gid("Ci::Runner", 900_000 + number) for number in range(49)]
    wanted = [*ids_of(runners[0]), *missing, *ids_of(*runners[1:])]
    payload = asker_of(cast.alice).change("bulkRunnerDelete", DELETED, ids=wanted)
    assert payload["deletedIds"] == ids_of(runners[0])
    assert "the last 2 were ignored" in payload["errors"][0]
    payload = asker_of(cast.alice).change("runnerBulkPause", PAUSED, ids=wanted, paused=True)
    assert payload["updatedCount"] == 0
    assert "the last 2 were ignored" in payload["errors"][0]


def test_runners_are_paused_and_go_on(cast: Cast, asker_of: AskerOf) -> None:
    runners = [cast.runner(cast.acme).runner, cast.runner(cast.web).runner]
    other = cast.runner(cast.other).runner
    for paused in (True, True, False):
        payload = asker_of(cast.alice).change(
            "runnerBulkPause", PAUSED, ids=ids_of(*runners, other, runners[0]), paused=paused
        )
        assert payload["updatedCount"] == 2
        assert payload["updatedRunners"] == [
            {"id": each, "paused": paused, "userPermissions": {"updateRunner": True}} for each in ids_of(*runners)
        ]
        assert f"#{other.id}" in payload["errors"][0]
        for runner in runners:
            cast.session.refresh(runner)
            assert runner.paused == paused
    cast.session.refresh(other)
    assert not other.paused


def test_pausing_none_is_no_error(cast: Cast, asker_of: AskerOf) -> None:
    payload = asker_of(cast.alice).change("runnerBulkPause", PAUSED, ids=[], paused=True)
    assert payload == {"clientMutationId": None, "errors": [], "updatedCount": 0, "updatedRunners": []}
