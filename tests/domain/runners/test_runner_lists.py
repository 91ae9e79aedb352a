"""Lists of runners: which runners each scope shows, filters, counts, order and pages."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes
from portal.domain.runners import runner_lists, runner_tokens, runners
from portal.domain.runners.runner_lists import SORTS, RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import INSTANCE, Scope
from portal.models import RegistrationType, Runner, RunnerManager, RunnerToken, RunnerType, TokenOrigin, User
from tests.cast import Cast
from tests.domain.queries import asked

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL = RunnerFilter()


def runner(
    cast: Cast,
    name: str,
    scope: Scope = INSTANCE,
    *,
    tags: tuple[str, ...] = (),
    paused: bool = False,
    by: User | None = None,
    **columns: Any,
) -> Runner:
    """A runner of this description with some columns set by hand, such as its age."""
    settings = RunnerSettings(description=name, tags=tags, run_untagged=True, paused=paused)
    made = runners.create_runner(cast.session, cast.as_(by or cast.dana), scope, settings).runner
    for column, value in columns.items():
        setattr(made, column, value)
    cast.session.flush()
    return made


def names(session: Session, scope: Scope = INSTANCE, wanted: RunnerFilter = ALL) -> list[str]:
    return sorted(row.runner.description for row in runner_lists.page(session, scope, wanted).rows)


@pytest.fixture
def everywhere(cast: Cast) -> Cast:
    """One runner in every scope, named after it."""
    deep = cast.project("api", cast.platform)
    for scope in (INSTANCE, cast.acme, cast.platform, cast.web, deep, cast.other):
        runner(cast, scope.title, scope)
    return cast


# Which runners a scope shows


def test_the_instance_shows_all_runners(session: Session, everywhere: Cast) -> None:
    everything = ["acme", "acme/platform", "acme/platform/api", "acme/web", "other", "the instance"]
    assert names(session) == names(session, wanted=RunnerFilter(inherited=True)) == everything


def test_a_group_shows_its_own_and_those_below(session: Session, everywhere: Cast) -> None:
    assert names(session, everywhere.acme) == ["acme", "acme/platform", "acme/platform/api", "acme/web"]
    assert names(session, everywhere.platform) == ["acme/platform", "acme/platform/api"]


def test_a_group_adds_what_it_inherits_when_asked(session: Session, everywhere: Cast) -> None:
    inherited = RunnerFilter(inherited=True)
    below = ["acme", "acme/platform", "acme/platform/api"]
    assert names(session, everywhere.platform, inherited) == [*below, "the instance"]
    assert names(session, everywhere.other, inherited) == ["other", "the instance"]


@pytest.mark.parametrize("inherited", [False, True])
def test_a_project_always_shows_what_it_can_use(session: Session, everywhere: Cast, inherited: bool) -> None:
    api = scopes.find_project(session, "acme/platform/api")
    wanted = RunnerFilter(inherited=inherited)
    assert names(session, everywhere.web, wanted) == ["acme", "acme/web", "the instance"]
    assert names(session, api, wanted) == ["acme", "acme/platform", "acme/platform/api", "the instance"]


def test_a_scope_finds_the_runners_its_pages_may_show_and_no_other(session: Session, everywhere: Cast) -> None:
    ids = {row.runner.description: row.runner.id for row in runner_lists.page(session, INSTANCE, ALL).rows}
    found = {name for name, number in ids.items() if runner_lists.find(session, everywhere.platform, number)}
    assert found == {"the instance", "acme", "acme/platform", "acme/platform/api"}
    found = {name for name, number in ids.items() if runner_lists.find(session, everywhere.web, number)}
    assert found == {"the instance", "acme", "acme/web"}
    assert runner_lists.find(session, INSTANCE, max(ids.values()) + 1) is None


# Filters and counts


def one_of_each_status(cast: Cast) -> None:
    old, moment = now() - 30 * DAY, now()
    runner(cast, "online", created_at=old, contacted_at=moment)
    runner(cast, "offline", created_at=old, contacted_at=moment - 3 * HOUR, paused=True)
    runner(cast, "stale", created_at=old, contacted_at=moment - 8 * DAY)
    runner(cast, "never_contacted")


@pytest.mark.parametrize("status", Status)
def test_a_list_is_narrowed_to_one_status(session: Session, cast: Cast, status: Status) -> None:
    one_of_each_status(cast)
    page = runner_lists.page(session, INSTANCE, RunnerFilter(status=status))
    assert [(row.runner.description, row.status) for row in page.rows] == [(status.value, status)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (RunnerFilter(type=RunnerType.GROUP), ["linux"]),
        (RunnerFilter(type=RunnerType.PROJECT), ["mac"]),
        (RunnerFilter(paused=True), ["mac"]),
        (RunnerFilter(registration=RegistrationType.REGISTRATION_TOKEN), ["mac"]),
        (RunnerFilter(registration=RegistrationType.AUTHENTICATED_USER), ["linux", "windows"]),
        (RunnerFilter(due=True), []),
        (RunnerFilter(paused=False), ["linux", "windows"]),
        (RunnerFilter(tags=("docker",)), ["linux", "mac"]),
        (RunnerFilter(tags=("docker", "arm")), ["mac"]),
        (RunnerFilter(tags=("Docker",)), []),
        (RunnerFilter(creator="ALICE"), ["linux"]),
        (RunnerFilter(creator="nobody"), []),
        (RunnerFilter(words="win"), ["windows"]),
        (RunnerFilter(words="   "), ["linux", "mac", "windows"]),
        (RunnerFilter(type=RunnerType.GROUP, paused=True), []),
        (RunnerFilter(tags=("docker",), creator="alice", paused=False, type=RunnerType.GROUP), ["linux"]),
    ],
)
def test_filters_narrow_a_list_together(session: Session, cast: Cast, wanted: RunnerFilter, found: list[str]) -> None:
    runner(cast, "linux", cast.acme, tags=("docker", "amd64"), by=cast.alice)
    by_token = RegistrationType.REGISTRATION_TOKEN
    runner(cast, "mac", cast.web, tags=("docker", "arm"), paused=True, registration_type=by_token)
    runner(cast, "windows", tags=("vs",))
    assert names(session, wanted=wanted) == found
    assert runner_lists.counts(session, INSTANCE, wanted).total == len(found)


def overdue(cast: Cast, name: str, scope: Scope = INSTANCE) -> Runner:
    """A runner whose token has outlived three quarters of its life."""
    made = runner(cast, name, scope)
    token = cast.session.scalars(select(RunnerToken).where(RunnerToken.runner_id == made.id)).one()
    token.created_at, token.expires_at = now() - 4 * HOUR, now() + HOUR
    cast.session.flush()
    return made


def test_a_list_is_narrowed_to_runners_whose_token_is_due(session: Session, cast: Cast) -> None:
    overdue(cast, "late", cast.acme)
    runner(cast, "fine", cast.acme)
    wanted = RunnerFilter(due=True)
    assert names(session, wanted=wanted) == names(session, cast.acme, wanted) == ["late"]
    assert runner_lists.counts(session, INSTANCE, wanted).total == runner_lists.count_due(session, INSTANCE) == 1
    assert runner_lists.count_due(session, cast.other) == 0


def test_nobody_learns_from_a_list_whether_an_inherited_runners_token_is_due(session: Session, cast: Cast) -> None:
    overdue(cast, "of the group", cast.acme)
    overdue(cast, "of the project", cast.web)
    overdue(cast, "of all")
    wanted = RunnerFilter(due=True)
    assert names(session, cast.web, wanted) == ["of the project"]
    assert names(session, cast.platform, replace(wanted, inherited=True)) == []
    assert runner_lists.count_due(session, cast.web) == 1
    assert names(session, cast.web) == ["of all", "of the group", "of the project"]


def test_counts_respect_the_other_filters_and_not_the_status(session: Session, cast: Cast) -> None:
    one_of_each_status(cast)
    for wanted in (RunnerFilter(), RunnerFilter(status=Status.STALE)):
        counts = runner_lists.counts(session, INSTANCE, wanted)
        assert (counts.by_status, counts.total) == (dict.fromkeys(Status, 1), 4)
    paused = runner_lists.counts(session, INSTANCE, RunnerFilter(paused=True, status=Status.STALE))
    assert (paused.by_status, paused.total) == ({**dict.fromkeys(Status, 0), Status.OFFLINE: 1}, 1)
    assert runner_lists.counts(session, cast.acme, ALL).total == 0
    assert runner_lists.counts(session, cast.acme, RunnerFilter(inherited=True)).total == 4


def test_counts_stop_where_they_are_told_to(session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    one_of_each_status(cast)
    for number in range(3):
        runner(cast, f"online {number}", contacted_at=now())
    monkeypatch.setattr(runner_lists, "COUNTED", 2)
    counts = runner_lists.counts(session, INSTANCE, ALL)
    assert counts.total == 3  # stands for more than two
    assert counts.by_status == {**dict.fromkeys(Status, 1), Status.ONLINE: 3}
    monkeypatch.setattr(runner_lists, "COUNTED", 7)
    assert runner_lists.counts(session, INSTANCE, ALL).by_status[Status.ONLINE] == 4


def test_a_runner_names_the_groups_above_it_however_it_was_made(session: Session, cast: Cast) -> None:
    acme, platform = (scope.group_ids[-1] for scope in (cast.acme, cast.platform))
    made = {scope.title: runner(cast, "a", scope) for scope in (INSTANCE, cast.acme, cast.platform, cast.web)}
    session.expire_all()
    assert {title: each.group_ids for title, each in made.items()} == {
        "the instance": [],
        "acme": [acme],
        "acme/platform": [acme, platform],
        "acme/web": [acme],
    }
    made["acme/web"].project = cast.project("tools", cast.platform).project
    made["acme"].group_ids = [0]  # nobody else says what they are
    session.flush()
    session.expire_all()
    assert (made["acme/web"].group_ids, made["acme"].group_ids) == ([acme, platform], [acme])


def test_nothing_stands_before_an_update_of_what_heartbeats_write(session: Session) -> None:
    """PostgreSQL would lock the row first and make its words anew, whichever columns the trigger is for."""
    tables = ["ci_runners", "ci_runner_machines", "ci_runner_tokens"]
    query = "SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:name AS regclass) AND tgtype & 18 = 18"  # 2 + 16
    assert [name for table in tables for name in session.scalars(text(query), {"name": table})] == []


@pytest.mark.parametrize("change", [{"sort": "contacted_asc"}, {"inherited": True}])
def test_order_and_inheritance_are_no_filters(change: dict[str, Any]) -> None:
    assert not replace(ALL, **change).is_active
    assert replace(ALL, paused=False, **change).is_active


def test_the_filter_offers_tags_by_use_and_creators_by_name(session: Session, cast: Cast) -> None:
    runner(cast, "a", cast.acme, tags=("rare", "docker"), by=cast.dana)
    runner(cast, "b", cast.web, tags=("docker",), by=cast.alice)
    runner(cast, "c", cast.other, tags=("elsewhere",), by=cast.dana)
    assert runner_lists.tags_in(session, cast.acme) == ["docker", "rare"]
    assert runner_lists.creators_in(session, cast.acme) == [cast.alice, cast.dana]
    assert runner_lists.creators_in(session, cast.platform) == [cast.dana]


# Lines


def test_a_line_shows_the_machine_heard_of_last(session: Session, cast: Cast) -> None:
    made, moment = runner(cast, "busy", version="old", ip_address="192.0.2.99"), now()
    assert [(r.managers, r.version, r.address) for r in lines(session)] == [(0, "old", "192.0.2.99")]
    for name, ago, version in (("s_1", HOUR, "18.0.0"), ("s_2", 0 * HOUR, "19.0.0"), ("s_3", None, "1.0.0")):
        machine = RunnerManager(runner_id=made.id, system_xid=name, version=version, ip_address=f"192.0.2.{name[-1]}")
        machine.contacted_at = None if ago is None else moment - ago
        session.add(machine)
    session.flush()
    assert [(r.managers, r.version, r.address) for r in lines(session)] == [(3, "19.0.0", "192.0.2.2")]


def test_a_line_shows_the_newest_token_short(session: Session, cast: Cast) -> None:
    made = runner(cast, "reset twice")
    for _ in range(2):
        issued = runner_tokens.reset_token(session, cast.as_(cast.dana), made, seen_token_id=None)
    assert [row.short for row in lines(session)] == [issued.record.short]


def test_a_line_says_whether_the_runner_was_imported(session: Session, cast: Cast) -> None:
    runner(cast, "made here")
    moved = runner(cast, "moved in")
    session.scalars(select(RunnerToken).where(RunnerToken.runner_id == moved.id)).one().origin = TokenOrigin.IMPORTED
    session.flush()
    runner_tokens.reset_token(session, cast.as_(cast.dana), moved, seen_token_id=None)
    assert {row.runner.description: row.imported for row in lines(session)} == {"made here": False, "moved in": True}


def test_a_line_says_that_nobody_can_use_the_runner_any_more(session: Session, cast: Cast) -> None:
    made = runner(cast, "ended")
    runner(cast, "fine")
    runner_tokens.end_token(session, cast.as_(cast.dana), made, runner_tokens.last_issued(session, made).id)
    assert {row.runner.description: row.cut_off for row in lines(session)} == {"ended": True, "fine": False}


def test_a_page_asks_as_much_for_twenty_runners_as_for_two(session: Session, cast: Cast) -> None:
    spent = []
    for number in (2, 18):
        for n in range(number):
            runner(cast, f"{number}-{n}", cast.acme)
        session.expire_all()
        with asked(session) as statements:
            assert all(row.runner.creator and row.runner.group for row in lines(session))
        spent.append(len(statements))
    assert spent[0] == spent[1]


def lines(session: Session) -> list[runner_lists.Row]:
    return runner_lists.page(session, INSTANCE, ALL).rows


# Order and pages


@pytest.fixture
def eleven(cast: Cast) -> list[Runner]:
    """Eleven runners; some created in the same moment, some contacted in the same moment, some never."""
    start = now() - 20 * DAY
    contacts = [None, 1, 5, None, 5, 5, 2, None, 9, 1, None]
    created = [0, 0, 0, 1, 2, 3, 3, 4, 5, 6, 6]
    return [
        runner(
            cast,
            f"runner {n}",
            created_at=start + made * HOUR,
            contacted_at=None if contact is None else start + contact * DAY,
        )
        for n, (made, contact) in enumerate(zip(created, contacts, strict=True))
    ]


def expected(several: list[Runner], sort: str) -> list[int]:
    def place(each: Runner) -> tuple[float, int]:
        moment = each.contacted_at if sort.startswith("contacted") else each.created_at
        return (moment.timestamp() if moment else float("-inf")), each.id

    return [each.id for each in sorted(several, key=place, reverse=sort.endswith("desc"))]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 12])
@pytest.mark.parametrize("sort", SORTS)
def test_paging_visits_each_runner_once_in_order_there_and_back(
    session: Session, eleven: list[Runner], sort: str, size: int
) -> None:
    wanted = RunnerFilter(sort=sort)
    page = runner_lists.page(session, INSTANCE, wanted, size=size)
    assert page.before is None
    pages = [page]
    while page.after:
        page = runner_lists.page(session, INSTANCE, wanted, after=page.after, size=size)
        pages.append(page)
    visited = [[row.runner.id for row in each.rows] for each in pages]
    assert [number for each in visited for number in each] == expected(eleven, sort)
    assert all(len(each) == size for each in visited[:-1])
    back = [visited[-1]]
    while page.before:
        page = runner_lists.page(session, INSTANCE, wanted, before=page.before, size=size)
        assert page.after is not None
        back.append([row.runner.id for row in page.rows])
    assert back == visited[::-1]


def test_a_runner_that_is_made_between_two_pages_moves_nobody(
    session: Session, cast: Cast, eleven: list[Runner]
) -> None:
    first = runner_lists.page(session, INSTANCE, ALL, size=5)
    runner(cast, "newest")
    second = runner_lists.page(session, INSTANCE, ALL, after=first.after, size=5)
    seen = [row.runner.id for row in [*first.rows, *second.rows]]
    assert seen == expected(eleven, "created_desc")[:10]


def test_a_page_beyond_the_end_is_empty_and_offers_no_next(session: Session, eleven: list[Runner]) -> None:
    last = f"{eleven[0].created_at.isoformat()}~{eleven[0].id}"
    page = runner_lists.page(session, INSTANCE, ALL, after=last)
    assert (page.rows, page.after) == ([], None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "~",
        "7",
        "yesterday~7",
        "2026-01-01~",
        "2026-01-01~-7",
        "2026-01-01~" + "9" * 19,
        "2026-01-01T00:00:00+00:00~7; DROP TABLE ci_runners",
        "infinity~7",
        "\0~7",
        "9999-99-99~1",
    ],
)
@pytest.mark.parametrize("direction", ["after", "before"])
def test_a_cursor_that_is_none_is_the_start(
    session: Session, eleven: list[Runner], cursor: str, direction: str
) -> None:
    page = runner_lists.page(session, INSTANCE, ALL, size=3, **{direction: cursor})
    assert [row.runner.id for row in page.rows] == expected(eleven, "created_desc")[:3]


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00 02:00",
        "2026-01-01T00:00:00+23:59",
        "2026-01-01T00:00:00-23:59",
        "2026-01-01T00:00:00+01:02:03",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "-infinity",
    ],
)
@pytest.mark.parametrize("sort", SORTS)
def test_any_moment_is_a_place_to_go_on_from(session: Session, eleven: list[Runner], moment: str, sort: str) -> None:
    for direction in ("after", "before"):
        page = runner_lists.page(session, INSTANCE, RunnerFilter(sort=sort), **{direction: f"{moment}~7"})
        assert {row.runner.id for row in page.rows} <= {each.id for each in eleven}
