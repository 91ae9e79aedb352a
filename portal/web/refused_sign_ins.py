"""Sign-ins that are refused before an account is looked for, put on the trail; a flood of them leaves it readable."""

from __future__ import annotations

from time import monotonic

from flask import current_app
from flask_login import current_user

from portal.database import db
from portal.domain.actors import Actor
from portal.domain.people import confirmations
from portal.domain.people.sign_in_throttle import network_of
from portal.domain.trail import refused_acts
from portal.domain.trail.refused_acts import Flood
from portal.requests import client_address
from portal.web import guards, sign_in_attempts


def note(reason: str, *, method: str) -> None:
    """Write that nobody was signed in: five times a minute from one network, then the next says how many more.

    `reason` is a fixed word of ours. Nothing else of the transaction may be waiting to be written.
    """
    unrecorded = _unrecorded()
    if unrecorded is not None:
        refused_acts.record_sign_in(db.session(), asker(), method=method, reason=reason, unrecorded=unrecorded)
        db.session.commit()


def note_confirmation(reason: str, *, method: str) -> None:
    """Write that who is signed in has not proved again who they are; as `note` does, and as often."""
    unrecorded = _unrecorded()
    if unrecorded is not None:
        user = guards.user_session().user
        confirmations.record_refusal(db.session(), guards.actor(), user, reason, method=method, unrecorded=unrecorded)
        db.session.commit()


def asker() -> Actor:
    """Who tries: a visitor, or who is signed in already and connects or confirms."""
    return guards.actor() if current_user.is_authenticated else sign_in_attempts.visitor()


def _unrecorded() -> int | None:
    flood: Flood = current_app.extensions["refused_sign_ins"]
    return flood.take(network_of(client_address()), monotonic())
