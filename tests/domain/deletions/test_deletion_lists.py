"""What is listed as deleted: only what the reader may restore, newest first, in pages; and no trace elsewhere."""

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletions
from portal.domain.deletions.deletion_lists import count_runners, exists_any, find, of_runner, page, runners_of
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import Deletion, Role, Runner, RunnerManager, User
from tests.cast import SYSTEM, Cast

KEPT = timedelta(days=7)


def titles(session: Session, cast: Cast, who: User, words: str = "") -> list[str]:
    return [entry.title for entry in page(session, cast.as_(who), KEPT, words=words).entries]


def named(cast: Cast, name: str, scope: object = None) -> Runner:
    return cast.runner(scope, RunnerSettings(description=name, tags=("x",))).runner  # type: ignore[arg-type]


@pytest.fixture
def world(session: Session, cast: Cast) -> dict[str, Deletion]:
    """Of acme and of its project a runner each, of both and of another group one together, and a subgroup."""
    made = {
        "acme": runners.delete_runner(session, SYSTEM, named(cast, "acme one")),
        "web": runners.delete_runner(session, SYSTEM, named(cast, "web one", cast.web)),
    }
    made["many"] = deletions.begin(session, SYSTEM, "runners", "3 runners of the instance")
    for name, scope in (("acme two", cast.acme), ("web two", cast.web), ("other two", cast.other)):
        runner = named(cast, name, scope)
        session.add(RunnerManager(runner_id=runner.id, system_xid="s_1"))
        runners.delete_runner(session, SYSTEM, runner, deletion=made["many"])
    made["platform"] = groups.delete(session, SYSTEM, cast.platform)
    session.commit()
    return made


def test_everybody_sees_what_they_may_restore_the_newest_first(
    session: Session, cast: Cast, world: dict[str, Deletion]
) -> None:
    assert titles(session, cast, cast.dana) == ["acme/platform", "3 runners", "web one", "acme one"]
    assert titles(session, cast, cast.alice) == ["acme/platform", "2 runners", "web one", "acme one"]
    assert titles(session, cast, cast.bob) == ["1 runner", "web one"]
    assert titles(session, cast, cast.erin) == titles(session, cast, cast.charlie) == []
    seen = [exists_any(session, cast.as_(who), KEPT) for who in (cast.bob, cast.erin, cast.charlie)]
    assert seen == [True, False, False]


def test_of_an_act_everybody_sees_their_own_part(session: Session, cast: Cast, world: dict[str, Deletion]) -> None:
    entry = find(session, cast.as_(cast.bob), world["many"].id, KEPT)
    assert (entry.runners, entry.machines) == (1, 1)
    assert [r.description for r in runners_of(session, cast.as_(cast.bob), world["many"])] == ["web two"]
    with pytest.raises(NotFound):
        find(session, cast.as_(cast.bob), world["acme"].id, KEPT)
    (others,) = (r for r in runners_of(session, SYSTEM, world["many"]) if r.description == "other two")
    with pytest.raises(NotFound):
        of_runner(session, cast.as_(cast.bob), others.id, KEPT)


def test_the_words_of_a_search_stand_in_a_name_or_a_path_that_the_reader_may_see(
    session: Session, cast: Cast, world: dict[str, Deletion]
) -> None:
    assert titles(session, cast, cast.alice, "WEB T") == ["2 runners"]
    assert titles(session, cast, cast.alice, "platf") == ["acme/platform"]
    assert titles(session, cast, cast.alice, "other two") == []
    assert titles(session, cast, cast.dana, "other two") == ["3 runners"]


def test_pages_go_to_the_oldest_and_back(session: Session, cast: Cast, world: dict[str, Deletion]) -> None:
    dana = cast.as_(cast.dana)
    first = page(session, dana, KEPT, size=2)
    assert ([e.title for e in first.entries], first.before) == (["acme/platform", "3 runners"], None)
    second = page(session, dana, KEPT, size=2, after=first.after)
    assert ([e.title for e in second.entries], second.after) == (["web one", "acme one"], None)
    assert page(session, dana, KEPT, size=2, before=second.before).entries == first.entries


def test_what_is_over_is_listed_no_more(session: Session, cast: Cast, world: dict[str, Deletion]) -> None:
    for deletion in world.values():
        deletion.created_at = now() - KEPT
    session.flush()
    assert titles(session, cast, cast.dana) == []
    assert count_runners(session, cast.as_(cast.dana), INSTANCE, KEPT) == 0


def test_a_list_of_runners_counts_those_that_can_be_restored(
    session: Session, cast: Cast, world: dict[str, Deletion]
) -> None:
    alice, bob = cast.as_(cast.alice), cast.as_(cast.bob)
    assert count_runners(session, alice, cast.acme, KEPT) == 4
    assert count_runners(session, bob, cast.web, KEPT) == 2
    assert count_runners(session, bob, cast.acme, KEPT) == 2
    assert count_runners(session, cast.as_(cast.erin), cast.acme, KEPT) == 0


def test_an_owner_of_a_part_of_a_deleted_group_does_not_see_the_act(session: Session, cast: Cast) -> None:
    cast.member(cast.charlie, cast.platform, Role.OWNER)
    groups.delete(session, SYSTEM, cast.acme)
    assert titles(session, cast, cast.charlie) == []
    assert titles(session, cast, cast.alice) == ["acme"]
