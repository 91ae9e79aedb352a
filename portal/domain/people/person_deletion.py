"""Deleting a person: what goes with the account, and what becomes of the runners that they created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.bulk import bulk_acts
from portal.domain.deletions import deletions
from portal.domain.enrolment import enrolment_key_lists, enrolment_keys
from portal.domain.errors import Invalid, LeftWithoutOwner, OwnAccount
from portal.domain.people import access_token_lists, people, person_facts, user_sessions
from portal.domain.runners import runners
from portal.domain.scopes import INSTANCE
from portal.models import WITH_DELETED, BulkAct, Deletion, EnrolmentKey, Group, Membership, Role, Runner, User

AT_ONCE = 500  # runners that are paused or deleted in one answer; more are a bulk act's business


class Runners(StrEnum):
    """What becomes of the runners that a deleted person created."""

    KEEP = "keep"
    PAUSE = "pause"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Gone:
    """What went with a person, and how many runners they had created."""

    roles: int
    sessions: int
    runners: int


def delete_person(
    session: Session, actor: Actor, user: User, *, created: Runners, leave_groups: bool = False
) -> Gone:
    """Delete a person with their roles, sessions, second factor and ways to sign in. The trail keeps their name.

    `created` says what becomes of the runners that they created; what is deleted can be restored as one. With
    `leave_groups`, top-level groups may be left without an owner, for administrators to look after.

    Raises NotFound, NotAllowed, LastAdministrator, OwnAccount for oneself, and Invalid for groups that would be left
    and for too many runners to pause or delete at once.
    """
    people.hold(session, actor, user)
    if actor.user is not None and actor.user.id == user.id:
        raise OwnAccount({"person": ["You cannot delete your own account. Ask another administrator to do it."]})
    people.keep_an_administrator(session, user)
    with session.begin_nested():  # a refusal leaves everything as it was
        for act_id in bulk_acts.hold_of(session, BulkAct.user_id == user.id):
            bulk_acts.stop(session, actor, act_id)  # the trail says how far it came
        _hold(session, user)
        roles = _take_roles(session, actor, user, leave_groups=leave_groups)
        number = _settle_runners(session, actor, user, created)
        ended = user_sessions.end_all(session, user)
        done = {"keep": "kept", "pause": "paused", "delete": "deleted"}[created]
        changes: dict[str, tuple[object, object]] = {
            "username": (user.username, None),
            "roles": (roles, 0),
            "sessions": (ended, 0),
        }
        if number_of_tokens := access_token_lists.count_good(session, user, now()):
            changes["access_tokens"] = (number_of_tokens, 0)
        if keys := _revoke_keys(session, actor, user):
            changes["enrolment_keys"] = (keys, 0)
        if number:
            changes["runners_created"] = (number, done)
        audit.record(session, actor, "person_deleted", user, INSTANCE, changes)
        session.flush()
        session.delete(user)
        session.flush()
    return Gone(roles, ended, number)


def _hold(session: Session, user: User) -> None:
    """Wait for what the person and others are doing with what is theirs, in the order in which everybody locks.

    A deletion comes before its runners, as for who restores it. A runner comes before its person, as for who deletes
    it and is noted for that; so does an enrolment key, as for who creates a runner with it. The database will take
    the person's number out of all of these rows.
    """
    theirs = select(Deletion.id).where(Deletion.user_id == user.id).order_by(Deletion.id)
    session.execute(theirs.with_for_update(key_share=True))
    keys = select(EnrolmentKey.id).where(EnrolmentKey.creator_id == user.id).order_by(EnrolmentKey.id)
    session.execute(keys.with_for_update())
    created = select(Runner.id).where(Runner.creator_id == user.id).order_by(Runner.id)
    session.execute(created.with_for_update(key_share=True).execution_options(**WITH_DELETED))
    session.execute(select(User.id).where(User.id == user.id).with_for_update())


def _revoke_keys(session: Session, actor: Actor, user: User) -> int:
    """End the person's enrolment keys, which can do nothing without them. Returns how many there were."""
    ids = enrolment_key_lists.of_person(session, user)
    for key_id in ids:
        enrolment_keys.revoke_held(session, actor, enrolment_keys.hold(session, key_id))
    return len(ids)


def _take_roles(session: Session, actor: Actor, user: User, *, leave_groups: bool) -> int:
    given = person_facts.roles(session, user)
    owned = [each.scope.id for each in given if each.membership.role == Role.OWNER]
    for each in given:
        changed = {"role": (each.membership.role.name.lower(), None)}
        audit.record(session, actor, "member_removed", each.membership, each.scope, changed)
        session.delete(each.membership)
    session.flush()
    # Asked afterwards: who was removing another owner at this moment has finished, or will see that this one is gone.
    if not leave_groups and (left := _without_owner(session, owned)):
        names = ", ".join(group.full_path for group in left)
        sentence = f"Nobody else owns {names}. Make somebody an owner first, or tick the box."
        raise LeftWithoutOwner({"leave_groups": [sentence]})
    return len(given)


def _without_owner(session: Session, group_ids: Sequence[int | None]) -> Sequence[Group]:
    owner = exists().where(Membership.group_id == Group.id, Membership.access_level == Role.OWNER)
    query = select(Group).where(Group.id.in_(group_ids), Group.parent_id.is_(None), ~owner)
    return session.scalars(query.order_by(Group.id)).all()


def _settle_runners(session: Session, actor: Actor, user: User, created: Runners) -> int:
    """Keep, pause or delete the runners that the person created. Returns how many there are."""
    theirs = Runner.creator_id == user.id
    number = person_facts.count_runners(session, user)
    if created is Runners.KEEP or not number:
        return number
    if number > AT_ONCE:
        raise Invalid({"created": [f"These are too many for one answer: {created} them in the runner list first."]})
    found = session.scalars(select(Runner).where(theirs).order_by(Runner.id)).all()
    if created is Runners.PAUSE:
        for runner in found:
            runners.set_paused(session, actor, runner, True)
        return number
    title = f"runners that {user.name} created"
    deletion = deletions.begin(session, actor, "runners", title) if number > 1 else None  # one goes as always
    for runner in found:
        runners.delete_runner(session, actor, runner, deletion=deletion)
    return number
