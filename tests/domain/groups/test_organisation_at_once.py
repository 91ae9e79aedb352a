"""Groups, projects and their members, changed by several at once: nobody waits for ever, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.errors import Refusal
from portal.domain.groups import groups, memberships
from portal.models import Membership, Project, Role, User
from tests.cast import Cast

Deed = Callable[[Session], object]
ROUNDS = 8  # a race that is lost once in a while is lost within these


@pytest.fixture
def engine(own_database: str) -> Iterator[Engine]:
    made = create_engine(own_database, pool_size=8)
    yield made
    made.dispose()


def at_once(engine: Engine, *deeds: Deed) -> list[str]:
    """What became of each deed, in a thread and a session of its own: "done", or the name of what was raised."""
    start, ended = threading.Barrier(len(deeds)), ["" for _ in deeds]

    def do(number: int) -> None:
        with Session(engine) as session:
            start.wait()
            try:
                deeds[number](session)
                session.commit()
                ended[number] = "done"
            except Exception as failure:
                ended[number] = "refused" if isinstance(failure, Refusal) else type(failure).__name__

    threads = [threading.Thread(target=do, args=(number,)) for number in range(len(deeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_two_who_change_different_things_of_a_project_at_once_keep_both(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        alice_id, project_id = cast.alice.id, cast.web.id

    def amend(field: str, value: str) -> Deed:
        def deed(session: Session) -> None:
            scope = scopes.of_project(session.get_one(Project, project_id))
            groups.amend(session, Cast.as_(session.get_one(User, alice_id)), scope, {field: value})

        return deed

    for turn in range(ROUNDS):
        wanted = {"name": f"Name {turn}", "path": f"path-{turn}", "description": f"Words {turn}"}
        deeds = [amend(field, value) for field, value in wanted.items()]
        assert at_once(engine, *deeds, amend("path", f"other-{turn}")) == ["done"] * 4
        with Session(engine) as session:
            found = session.get_one(Project, project_id)
            assert (found.name, found.description) == (wanted["name"], wanted["description"])
            assert found.full_path == f"acme/{found.path}"


def test_owners_who_demote_each_other_at_once_leave_one_and_do_not_wait_for_ever(engine: Engine) -> None:
    with Session(engine) as session:
        cast = Cast(session)
        cast.member(cast.bob, cast.acme, Role.OWNER)
        session.commit()
        group, ids = cast.acme, (cast.alice.id, cast.bob.id)
        group_id = group.id

    def demote(who: int, whom: int) -> Deed:
        def deed(session: Session) -> None:
            actor = Cast.as_(session.get_one(User, who))
            scope = scopes.find_group(session, "acme")
            memberships.change_role(session, actor, scope, whom, Role.GUEST)

        return deed

    one, two = ids
    for _ in range(ROUNDS):
        assert sorted(at_once(engine, demote(one, two), demote(two, one))) == ["done", "refused"]
        with Session(engine) as session:
            mine = (Membership.group_id == group_id) & Membership.user_id.in_(ids)
            given = session.scalars(select(Membership).where(mine)).all()
            assert sorted(each.role for each in given) == [Role.GUEST, Role.OWNER]
            for each in given:
                each.access_level = Role.OWNER
            session.commit()
