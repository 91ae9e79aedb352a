"""Local accounts: creating people, checking and changing passwords."""

from __future__ import annotations

import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.config import LONGEST_PASSWORD
from portal.domain import audit
from portal.domain.actors import Actor, system
from portal.domain.errors import Invalid, NotFound, TryLater
from portal.domain.names import username_problems
from portal.domain.people import passwords, user_sessions
from portal.domain.permissions import Action, require
from portal.domain.scopes import INSTANCE
from portal.models import User, UserSession

_hasher = PasswordHasher()
# Checking a password costs a core for a while: so many at once and no more, or guessing would starve the runners.
_checks = threading.BoundedSemaphore(2)
# Checked when the account does not exist, so that the answer takes as long as for one that does.
_nobody = _hasher.hash(secrets.token_urlsafe(16))


def generated_password() -> str:
    """A password for somebody's first sign-in: about 107 random bits, easy to copy."""
    return secrets.token_urlsafe(18)[:18]


def find(session: Session, login: str) -> User | None:
    """The person with this user name or e-mail address, whatever the case."""
    word = login.strip().lower()
    return session.scalar(select(User).where(or_(func.lower(User.username) == word, func.lower(User.email) == word)))


def signed_in(session: Session, login: str, password: str) -> User | None:
    """The person these words belong to, or None; nothing tells which of the two was wrong.

    The person is held until the end of the transaction: a password that is replaced meanwhile lets nobody in.
    Raises TryLater when many passwords are being checked at this moment.
    """
    user = find(session, login)
    if not _is_right(user, password) or user is None or not _is_unchanged(session, user):
        return None
    if user.password_digest and _hasher.check_needs_rehash(user.password_digest):
        user.password_digest = _hasher.hash(password)
    return user


def identity_problems(
    session: Session, username: str, name: str, email: str, *, of: User | None = None
) -> dict[str, list[str]]:
    """What is wrong with what a person is called and reached by, by field; the lists are empty where nothing is.

    `of` is the person who has it already, so that nobody is told that they have taken their own name.
    """
    problems = {
        "username": username_problems(username),
        "name": [] if name else ["Say what to call them."],
        "email": _email_problems(email),
    }
    if len(name) > 255:
        problems["name"] = ["It is too long: at most 255 characters."]
    for field, value in (("username", username), ("email", email)):
        if not problems[field] and (found := find(session, value)) and found is not of:
            problems[field] = [f"Somebody else has the {'user name' if field == 'username' else 'address'} already."]
    return problems


def create_person(
    session: Session,
    actor: Actor,
    *,
    username: str,
    name: str,
    email: str,
    password: str | None,
    admin: bool = False,
    must_change_password: bool = True,
) -> User:
    """A new person. Raises NotAllowed, or Invalid with the problems by field.

    `must_change_password` asks for a new password at the first sign-in: right for every password that
    somebody else has chosen or seen. Without a password they sign in at an OpenID Connect provider only.
    """
    require(session, actor, Action.WRITE_PEOPLE, INSTANCE)
    username, name, email = username.strip(), name.strip(), email.strip()
    problems = {**identity_problems(session, username, name, email), "password": []}
    if password is not None:
        problems["password"] = passwords.problems(password, (username, name, email))
    if any(problems.values()):
        raise Invalid({field: found for field, found in problems.items() if found})
    user = User(
        username=username,
        name=name,
        email=email,
        password_digest=None if password is None else _hasher.hash(password),
        admin=admin,
        must_change_password=must_change_password,
    )
    try:
        with session.begin_nested():
            session.add(user)
            session.flush()
    except IntegrityError:
        taken = "Somebody took the user name or the address this very moment. Choose another."
        raise Invalid({"username": [taken]}) from None
    audit.record(
        session,
        actor,
        "person_created",
        user,
        INSTANCE,
        {"username": (None, username), "admin": (None, admin)},
    )
    return user


def change_password(
    session: Session, actor: Actor, *, old: str, new: str, again: str, here: UserSession | None = None
) -> User:
    """Change the actor's own password. Every session of theirs ends, but for the one they are in (`here`).

    Raises Invalid, and TryLater when many passwords are being checked at this moment.
    """
    user = actor.user
    if user is None:
        raise NotFound("Sign in first.")
    problems: dict[str, list[str]] = {}
    if not _is_right(user, old) or not _is_unchanged(session, user):
        problems["old"] = ["This is not your present password."]
    if found := passwords.problems(new, (user.username, user.name, user.email)):
        problems["new"] = found
    elif new == old:
        problems["new"] = ["It is the same as the old one."]
    if new != again:
        problems["again"] = ["The two do not match."]
    if problems:
        raise Invalid(problems)
    set_password(user, new, must_change=False)
    ended = user_sessions.end_all(session, user, but=here)
    audit.record(session, actor, "password_changed", user, INSTANCE, {"other_sessions": (ended, 0)})
    return user


def reset_password(session: Session, actor: Actor, user: User, password: str) -> None:
    """Give somebody a new password; all their sessions end, and they choose their own at the next sign-in."""
    require(session, actor, Action.WRITE_PEOPLE, INSTANCE)
    if found := passwords.problems(password, (user.username, user.name, user.email)):
        raise Invalid({"password": found})
    set_password(user, password, must_change=True)
    ended = user_sessions.end_all(session, user)
    audit.record(session, actor, "password_reset", user, INSTANCE, {"sessions": (ended, 0)})


def set_password(user: User, password: str, *, must_change: bool) -> None:
    user.password_digest = _hasher.hash(password)
    user.must_change_password = must_change


def _is_right(user: User | None, password: str) -> bool:
    """Whether it is the person's password; for nobody, and for who has none, this takes as long. Raises TryLater."""
    known = user.password_digest if user else None
    if not _checks.acquire(blocking=False):
        raise TryLater("Many people are signing in at this moment. Wait a few seconds and try again.", 3)
    try:
        _hasher.verify(known or _nobody, password[: LONGEST_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _checks.release()
    return known is not None


def _is_unchanged(session: Session, user: User) -> bool:
    """Hold the person and read them again: whether the password that was just looked at is still theirs."""
    seen = user.password_digest
    held = select(User).where(User.id == user.id).with_for_update(key_share=True)
    found = session.scalar(held.execution_options(populate_existing=True))
    return found is not None and found.password_digest == seen


def _email_problems(email: str) -> list[str]:
    if not email:
        return ["Give an e-mail address."]
    try:
        validate_email(email, check_deliverability=False, test_environment=True)
    except EmailNotValidError as wrong:
        return [f"This is no e-mail address: {wrong}"]
    return []


def ensure_first_administrator(session: Session, password: str) -> str | None:
    """Make `root` when there is no administrator yet. Returns the password to print if one was generated."""
    if session.scalar(select(func.count()).where(User.admin)) or find(session, "root"):
        return None
    generated = "" if password else generated_password()
    create_person(
        session,
        system("first start"),
        username="root",
        name="Administrator",
        email="root@localhost.localdomain",
        password=password or generated,
        admin=True,
        must_change_password=False,
    )
    return generated or None
