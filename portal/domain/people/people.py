"""People, as administrators look after them: change, block, make administrator, end sessions, a new password."""

from __future__ import annotations

import hashlib

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit
from portal.domain.actors import Actor
from portal.domain.errors import NOTHING_HERE, Invalid, LastAdministrator, NotFound, OwnAccount, Stale
from portal.domain.people import accounts, user_sessions
from portal.domain.permissions import Action, require
from portal.domain.scopes import INSTANCE
from portal.models import User, UserIdentity


def get(session: Session, user_id: int) -> User:
    """The person with this number. Raises NotFound."""
    found = session.get(User, user_id)
    if found is None:
        raise NotFound("There is no such person. Their account may have been deleted.")
    return found


def hold(session: Session, actor: Actor, user: User | None = None) -> None:
    """Lock all administrators, the lower id first, then the person; read them afresh, and look again who asks.

    Of two administrators who demote, block or delete each other at once, the second waits here, and is then none
    any more. Raises NotFound for who may not (any more), and for a person who was deleted meanwhile.
    """
    administrators = select(User).where(User.admin).order_by(User.id).with_for_update(key_share=True)
    session.scalars(administrators.execution_options(populate_existing=True)).all()
    for each in (actor.user, user):
        if each is not None and not _read_afresh(session, each):
            raise NotFound(NOTHING_HERE)
    if actor.user is not None and actor.user.blocked_at is not None:  # while this request waited
        raise NotFound(NOTHING_HERE)
    require(session, actor, Action.WRITE_PEOPLE, INSTANCE)


def keep_an_administrator(session: Session, leaving: User) -> None:
    """Raise LastAdministrator if, without this one, no administrator could sign in. Call it while they are held."""
    if not is_needed(session, leaving):
        return
    raise LastAdministrator(
        {
            "administrator": [
                f"{leaving.name} is the last administrator who can sign in, so the portal would have none. "
                "Make somebody else an administrator first, or unblock one."
            ]
        }
    )


def is_needed(session: Session, user: User) -> bool:
    """Whether this is the last administrator who can sign in."""
    return user.admin and not session.scalar(select(func.count()).where(_administers(), User.id != user.id))


def create(
    session: Session,
    actor: Actor,
    *,
    username: str,
    name: str,
    email: str,
    password: str | None,
    admin: bool = False,
) -> User:
    """A new person, made by who administers still: one who is being demoted is not to make another administrator.

    They choose a password of their own at the first sign-in. Raises NotFound, NotAllowed or Invalid.
    """
    hold(session, actor)
    return accounts.create_person(
        session, actor, username=username, name=name, email=email, password=password, admin=admin
    )


def edit(
    session: Session,
    actor: Actor,
    user: User,
    *,
    username: str | None = None,
    name: str | None = None,
    email: str | None = None,
    seen: str | None = None,
) -> bool:
    """Change what a person is called and reached by. Returns whether anything changed. None stays as it is.

    `seen` is the `version` that the administrator decided on; Stale is raised if somebody changed the person since.
    Raises also NotFound, NotAllowed and Invalid.
    """
    hold(session, actor, user)
    if seen and seen != version(user):
        raise Stale(
            "Somebody else changed this person since you opened the form. What you wrote still stands below; "
            "compare it with the person's page, then save again."
        )
    old = {"username": user.username, "name": user.name, "email": user.email}
    said = {"username": username, "name": name, "email": email}
    new = old | {field: value.strip() for field, value in said.items() if value is not None}
    problems = accounts.identity_problems(session, **new, of=user)
    if any(problems.values()):
        raise Invalid({field: found for field, found in problems.items() if found})
    changed = audit.differences(old, new)
    if not changed:
        return False
    try:
        with session.begin_nested():
            user.username, user.name, user.email = new["username"], new["name"], new["email"]
            session.flush()
    except IntegrityError:
        taken = "Somebody took the user name or the address this very moment. Choose another."
        raise Invalid({"username": [taken]}) from None
    audit.record(session, actor, "person_changed", user, INSTANCE, changed)
    return True


def block(session: Session, actor: Actor, user: User) -> int:
    """Keep a person out: their sessions end at once, and they cannot sign in. Returns how many sessions ended.

    Their roles and the runners they created stay. Raises NotFound, NotAllowed, LastAdministrator, and OwnAccount for
    the actor's own.
    """
    hold(session, actor, user)
    if actor.user is not None and actor.user.id == user.id:
        raise OwnAccount({"person": ["You cannot block yourself. Ask another administrator to do it."]})
    if user.blocked_at is not None:
        return 0
    keep_an_administrator(session, user)
    user.blocked_at = now()
    session.flush()
    ended = user_sessions.end_all(session, user)
    audit.record(session, actor, "person_blocked", user, INSTANCE, {"sessions": (ended, 0)})
    return ended


def unblock(session: Session, actor: Actor, user: User) -> bool:
    """Let a person in again. Returns whether that changed anything. Raises NotFound or NotAllowed."""
    hold(session, actor, user)
    if user.blocked_at is None:
        return False
    user_sessions.end_all(session, user)  # one that began while they were being blocked is not to come to life
    changed = {"blocked_at": (user.blocked_at.isoformat(), None)}
    user.blocked_at = None
    audit.record(session, actor, "person_unblocked", user, INSTANCE, changed)
    return True


def set_administrator(session: Session, actor: Actor, user: User, admin: bool) -> bool:
    """Make a person an administrator, or take that away. Returns whether that changed anything.

    It counts as done by hand; who passes on what a provider says marks it as such afterwards.

    Raises NotFound, NotAllowed or LastAdministrator.
    """
    hold(session, actor, user)
    if user.admin == admin:
        return False
    if not admin:
        keep_an_administrator(session, user)
    user.admin, user.admin_from_openid = admin, False
    action = "administrator_added" if admin else "administrator_removed"
    audit.record(session, actor, action, user, INSTANCE, {"admin": (not admin, admin)})
    return True


def end_sessions(session: Session, actor: Actor, user: User) -> int:
    """End all sessions of a person, who may sign in again. Returns how many. Raises NotFound or NotAllowed."""
    hold(session, actor, user)
    ended = user_sessions.end_all(session, user)
    if ended:
        audit.record(session, actor, "sessions_ended", user, INSTANCE, {"sessions": (ended, 0)})
    return ended


def new_password(session: Session, actor: Actor, user: User, *, seen: str | None = None) -> str:
    """A generated password in place of the person's; returned once, and kept as a digest only.

    `seen` is the `password_version` that the administrator decided on. The same form, sent again, raises Stale and
    changes nothing, as does a second administrator's. Raises also NotFound and NotAllowed.
    """
    hold(session, actor, user)
    if seen and seen != password_version(user):
        raise Stale(
            f"{user.name} got another password since you opened the form: it was sent twice, somebody else reset "
            "it, or they changed it themselves. Nothing was changed this time; if the new one is lost, reset again."
        )
    password = accounts.generated_password()
    accounts.reset_password(session, actor, user, password)
    return password


def give_password(session: Session, actor: Actor, user: User, password: str) -> None:
    """The password that an administrator has chosen for somebody, who chooses their own at the next sign-in.

    Raises NotFound, NotAllowed or Invalid.
    """
    hold(session, actor, user)
    accounts.reset_password(session, actor, user, password)


def version(user: User) -> str:
    """What changes with every edit of the person; a form says by it what its reader has seen."""
    return _mark(user.username, user.name, user.email)


def password_version(user: User) -> str:
    """What changes with every new password, and tells nothing of it: its digest has a random salt."""
    return _mark("password", user.password_digest or "")


def _mark(*values: str) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:16]


def _administers() -> ColumnElement[bool]:
    """Condition for administrators who can sign in."""
    linked = exists().where(UserIdentity.user_id == User.id)
    return and_(User.admin, User.blocked_at.is_(None), or_(User.password_digest.is_not(None), linked))


def _read_afresh(session: Session, user: User) -> bool:
    """Lock this person and read them again. Returns whether they are still there."""
    query = select(User).where(User.id == user.id).with_for_update(key_share=True)
    return session.scalar(query.execution_options(populate_existing=True)) is not None
