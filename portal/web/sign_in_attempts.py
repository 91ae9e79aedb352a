"""Attempts to prove who one is, as the throttle counts them: at the sign-in, asked again, at a change of password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import after_this_request, g, request
from werkzeug.wrappers import Response

from portal.database import db
from portal.domain import actors
from portal.domain.actors import Actor
from portal.domain.errors import TryLater
from portal.domain.people.sign_in_throttle import KNOWN_FOR
from portal.models import SignInAttempt, User
from portal.requests import client_address, settings, sign_in_throttle


def visitor() -> Actor:
    """Who tries to sign in."""
    return actors.visitor(address=client_address(), request_id=g.request_id)


@contextmanager
def counted(login: str) -> Iterator[None]:
    """Count an attempt with this name, for good, before its password is looked at. Raises TryLater.

    It does not count when the password cannot be looked at now, which raises TryLater too.
    """
    attempt = _begin(login)
    try:
        yield
    except TryLater:
        sign_in_throttle().give_back(db.session(), attempt)
        db.session.commit()
        raise


def _begin(login: str) -> SignInAttempt:
    try:
        attempt = sign_in_throttle().begin(db.session(), visitor(), login, _mark())
    except TryLater:
        db.session.commit()  # the trail tells of it
        raise
    db.session.commit()
    return attempt


def forget_failures(user: User) -> None:
    """The person has proved who they are: their failures from here count no more, and the device is known."""
    mark = sign_in_throttle().succeeded(db.session(), user, client_address(), _mark())

    @after_this_request
    def keep_mark(response: Response) -> Response:
        response.set_cookie(
            settings().device_cookie,
            mark,
            max_age=KNOWN_FOR,
            path=settings().path_prefix or "/",
            secure=settings().over_https,
            httponly=True,
            samesite="Lax",
        )
        return response


def say_when(later: TryLater) -> None:
    """Say in the answer how long to wait before the next try."""

    @after_this_request
    def say(response: Response) -> Response:
        response.headers["Retry-After"] = str(later.seconds)
        return response


def _mark() -> str:
    return request.cookies.get(settings().device_cookie, "")
