"""Groups and projects: nesting, renaming, deleting, and who sees which."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain import audit, scopes
from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.groups import groups
from portal.domain.groups.groups import Contents, Naming
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, Group, Membership, Project, Role, Route, Runner, RunnerManager, RunnerToken
from tests.cast import SYSTEM, Cast


def paths(session: Session) -> set[str]:
    session.expire_all()
    return set(session.scalars(select(Route.path)))


def rename(session: Session, cast: Cast, scope: Scope, path: str, name: str = "New name") -> None:
    groups.rename(session, cast.as_(cast.dana), scope, Naming(name, path))


# Creating


def test_groups_nest_and_know_the_way_up(session: Session, cast: Cast) -> None:
    deep = cast.group("linux", inside=cast.platform)
    assert deep.full_path == "acme/platform/linux"
    assert deep.group_ids == [cast.acme.id, cast.platform.id, deep.id]
    assert cast.project("api", deep).full_path == "acme/platform/linux/api"
    assert [each.path for each in scopes.ancestors(session, deep)] == ["acme", "platform"]
    assert [each.path for each in scopes.ancestors(session, cast.web)] == ["acme"]


def test_groups_nest_to_twenty_levels(session: Session, cast: Cast) -> None:
    scope = INSTANCE
    for n in range(groups.DEEPEST):
        scope = cast.group(f"g{n}", inside=scope)
    cast.project("a-project-still-fits", scope)
    with pytest.raises(Invalid) as refused:
        cast.group("one-more", inside=scope)
    assert list(refused.value.problems) == ["path"]


def test_who_creates_a_group_inside_needs_no_role_of_their_own(session: Session, cast: Cast) -> None:
    made = groups.create_group(session, cast.as_(cast.alice), cast.acme, Naming("Tools", "tools"))
    assert not session.scalars(select(Membership).where(Membership.group_id == made.id)).all()


def test_who_creates_a_group_at_the_top_owns_it(session: Session, cast: Cast) -> None:
    made = groups.create_group(session, cast.as_(cast.dana), INSTANCE, Naming("Tools", "tools"))
    owner = session.scalars(select(Membership).where(Membership.group_id == made.id)).one()
    assert (owner.user, owner.role) == (cast.dana, Role.OWNER)


@pytest.mark.parametrize("who", ["alice", "charlie"])
def test_only_an_administrator_creates_groups_at_the_top(session: Session, cast: Cast, who: str) -> None:
    with pytest.raises(NotFound):
        groups.create_group(session, cast.as_(getattr(cast, who)), INSTANCE, Naming("Mine", "mine"))


def test_a_developer_creates_nothing_in_the_group(session: Session, cast: Cast) -> None:
    for create in (groups.create_group, groups.create_project):
        with pytest.raises(NotAllowed):
            create(session, cast.as_(cast.erin), cast.acme, Naming("Mine", "mine"))


def test_projects_live_in_groups(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid, match="choose a group first"):
        groups.create_project(session, cast.as_(cast.dana), INSTANCE, Naming("Web", "web2"))


@pytest.mark.parametrize(
    ("naming", "fields"),
    [
        (Naming("", "ok"), {"name"}),
        (Naming("Ok", "-no"), {"path"}),
        (Naming("Ok", "new"), {"path"}),
        (Naming("Ok", "ok", "x" * 1025), {"description"}),
        (Naming("<b>", "a b", "x" * 1025), {"name", "path", "description"}),
    ],
)
def test_wrong_names_are_told_beside_their_fields(
    session: Session, cast: Cast, naming: Naming, fields: set[str]
) -> None:
    before = paths(session)
    for create in (groups.create_group, groups.create_project):
        with pytest.raises(Invalid) as refused:
            create(session, SYSTEM, cast.acme, naming)
        assert set(refused.value.problems) == fields
    with pytest.raises(Invalid) as refused:
        groups.rename(session, SYSTEM, cast.platform, naming)
    assert set(refused.value.problems) == fields
    assert paths(session) == before


def test_a_word_reserved_at_the_top_is_free_below(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid):
        cast.group("admin")
    assert cast.group("admin", inside=cast.acme).full_path == "acme/admin"


@pytest.mark.parametrize("path", ["WEB", "web", "Platform"])
def test_groups_and_projects_share_their_paths_whatever_the_case(session: Session, cast: Cast, path: str) -> None:
    for create in (groups.create_group, groups.create_project):
        with pytest.raises(Invalid) as refused:
            create(session, SYSTEM, cast.acme, Naming("Another", path))
        assert list(refused.value.problems) == ["path"]
    assert cast.project("web", cast.platform).full_path == "acme/platform/web"


def test_a_scope_is_found_by_its_path_whatever_the_case(session: Session, cast: Cast) -> None:
    assert scopes.find_group(session, "ACME/Platform") == cast.platform
    assert scopes.find_project(session, "Acme/WEB") == cast.web
    for find, path in ((scopes.find_group, "acme/web"), (scopes.find_project, "acme"), (scopes.find_group, "")):
        with pytest.raises(NotFound):
            find(session, path)


# Renaming


def test_a_rename_moves_the_paths_of_everything_below_and_nothing_else(session: Session, cast: Cast) -> None:
    cast.project("api", cast.platform)
    cast.group("acme-tools")
    cast.project("platform", cast.group("acmex"))
    rename(session, cast, cast.acme, "umbrella")
    assert paths(session) == {
        *("umbrella", "umbrella/platform", "umbrella/platform/api", "umbrella/web"),
        *("other", "acme-tools", "acmex", "acmex/platform"),
    }


@pytest.mark.parametrize("path", ["a_me", "ac_e"])
def test_a_sign_that_a_pattern_would_take_for_any_letter_moves_nobody_else(
    session: Session, cast: Cast, path: str
) -> None:
    cast.group("sub", inside=cast.group(path))
    rename(session, cast, scopes.find_group(session, path), "moved")
    assert {"moved", "moved/sub", "acme", "acme/platform"} <= paths(session)


def test_a_rename_changes_the_case_and_the_name_alone_too(session: Session, cast: Cast) -> None:
    rename(session, cast, cast.acme, "ACME")
    assert {"ACME", "ACME/platform", "ACME/web"} <= paths(session)
    rename(session, cast, cast.platform, "platform", "The Platform")
    assert scopes.find_group(session, "acme/platform").name == "The Platform"


def test_a_project_is_renamed_within_its_group(session: Session, cast: Cast) -> None:
    rename(session, cast, cast.web, "www")
    assert paths(session) == {"acme", "acme/platform", "acme/www", "other"}


@pytest.mark.parametrize("path", ["web", "WEB"])
def test_a_rename_to_a_taken_path_changes_nothing(session: Session, cast: Cast, path: str) -> None:
    with pytest.raises(Invalid, match="already"):
        rename(session, cast, cast.platform, path)
    assert paths(session) == {"acme", "acme/platform", "acme/web", "other"}
    assert cast.platform.name == "Platform"


def test_a_rename_tells_old_and_new(session: Session, cast: Cast) -> None:
    rename(session, cast, cast.platform, "base", "Base")
    event = session.scalars(audit.of_scope(cast.platform).limit(1)).one()
    assert (event.action, event.changes) == (
        "group_renamed",
        {"name": ["Platform", "Base"], "path": ["acme/platform", "acme/base"]},
    )


def test_a_rename_to_the_same_writes_nothing(session: Session, cast: Cast) -> None:
    before = session.scalar(select(func.count()).select_from(AuditEvent))
    groups.rename(session, SYSTEM, cast.acme, Naming("Acme", "acme"))
    assert session.scalar(select(func.count()).select_from(AuditEvent)) == before


def test_bob_renames_his_project_and_not_the_group(session: Session, cast: Cast) -> None:
    groups.rename(session, cast.as_(cast.bob), cast.web, Naming("Www", "www"))
    with pytest.raises(NotFound):
        groups.rename(session, cast.as_(cast.bob), cast.acme, Naming("Mine", "mine"))
    with pytest.raises(NotAllowed):
        groups.rename(session, cast.as_(cast.erin), cast.acme, Naming("Mine", "mine"))


# Deleting


def test_deleting_a_group_takes_all_of_it_and_keeps_what_restoring_needs(session: Session, cast: Cast) -> None:
    cast.project("api", cast.platform)
    gone = [cast.runner(cast.acme), cast.runner(cast.platform), cast.runner(cast.web)]
    stays = cast.runner(cast.other)
    for issued in (*gone, stays):
        session.add_all(RunnerManager(runner_id=issued.runner.id, system_xid=f"s_{n}") for n in range(2))
    session.commit()
    everything = Contents(groups=1, projects=2, runners=3, managers=6)
    assert groups.contents(session, cast.acme) == everything
    deletion = groups.delete(session, cast.as_(cast.alice), cast.acme)
    session.commit()
    assert (deletion.kind, deletion.path) == ("group", "acme")
    mark = f"acme~deleted-{deletion.id}"
    assert paths(session) == {"other", mark, *(f"{mark}/{below}" for below in ("platform", "platform/api", "web"))}
    assert session.scalars(select(Group.path)).all() == ["other"]
    assert session.scalars(select(Runner.id)).all() == [stays.runner.id]
    assert not session.scalars(select(Project)).all()
    kept = [session.scalar(select(func.count()).select_from(kind)) for kind in (RunnerToken, RunnerManager)]
    assert kept == [4, 8]
    assert session.scalars(select(Membership)).all()


def test_deleting_a_project_takes_its_runners_and_not_its_groups(session: Session, cast: Cast) -> None:
    cast.runner(cast.web)
    stays = cast.runner(cast.acme)
    assert groups.contents(session, cast.web) == Contents(groups=0, projects=0, runners=1, managers=0)
    deletion = groups.delete(session, SYSTEM, cast.web)
    assert paths(session) == {"acme", "acme/platform", "other", f"acme/web~deleted-{deletion.id}"}
    assert session.scalars(select(Runner.id)).all() == [stays.runner.id]


def test_what_was_deleted_can_be_read_in_the_trail(session: Session, cast: Cast) -> None:
    groups.delete(session, cast.as_(cast.alice), cast.acme)
    event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
    assert (event.action, event.target_name, event.actor_name) == ("group_deleted", "acme", "Alice Lam")
    assert event.changes == {"groups": [1, 0], "projects": [1, 0], "runners": [0, 0], "managers": [0, 0]}


def test_the_path_of_a_deleted_group_is_free_again(session: Session, cast: Cast) -> None:
    groups.delete(session, SYSTEM, cast.other)
    assert cast.group("Other").full_path == "Other"


def test_bob_maintains_the_project_and_may_not_delete_it(session: Session, cast: Cast) -> None:
    with pytest.raises(NotAllowed):
        groups.delete(session, cast.as_(cast.bob), cast.web)
    with pytest.raises(NotFound):
        groups.delete(session, cast.as_(cast.charlie), cast.web)
    assert "acme/web" in paths(session)


# Seeing


@pytest.mark.parametrize(
    ("who", "seen_groups", "seen_projects"),
    [
        ("alice", ["acme", "acme/platform"], ["acme/platform/api", "acme/web"]),
        ("bob", [], ["acme/web"]),
        ("charlie", [], []),
        ("erin", ["acme", "acme/platform"], ["acme/platform/api", "acme/web"]),
        ("dana", ["acme", "acme/platform", "other"], ["acme/platform/api", "acme/web"]),
    ],
)
def test_people_see_their_groups_and_projects_and_what_is_below(
    session: Session, cast: Cast, who: str, seen_groups: list[str], seen_projects: list[str]
) -> None:
    cast.project("api", cast.platform)
    actor = cast.as_(getattr(cast, who))
    assert [each.full_path for each in session.scalars(groups.visible_groups(actor))] == seen_groups
    assert [each.full_path for each in session.scalars(groups.visible_projects(actor))] == seen_projects


@pytest.mark.parametrize(
    ("words", "found"), [("PLAT", ["acme/platform"]), ("%", []), ("_", []), ("e/p", ["acme/platform"])]
)
def test_groups_are_found_by_any_part_of_their_path(
    session: Session, cast: Cast, words: str, found: list[str]
) -> None:
    query = groups.visible_groups(cast.as_(cast.dana)).where(groups.named_like(words))
    assert [each.full_path for each in session.scalars(query)] == found
