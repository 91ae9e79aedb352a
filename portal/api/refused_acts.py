"""Refused acts of people's scripts, put on the trail when their answer is made."""

from __future__ import annotations

from time import monotonic

from flask import current_app, g, request

from portal.api.credentials import READS, Credential
from portal.database import db
from portal.domain import actors
from portal.domain.errors import BadRequest, EnrolmentKeyOver, Invalid, NotAllowed, NotFound, Refusal, ScopeTooSmall
from portal.domain.trail import refused_acts
from portal.domain.trail.refused_acts import Flood, Recorded
from portal.models import EnrolmentKey
from portal.request_logs import redacted
from portal.requests import client_address


def note(refusal: Refusal) -> None:
    """Write, in a transaction of its own, that the script may not do what it asked for.

    What it may not even look at stands in the request log only: no GET changes anything. Of the same person's
    refusals no more than thirty a minute are written, through whichever door.
    """
    credential: Credential | None = g.get("credential")
    if (key := _key_of(refusal, credential)) is not None:
        _note_enrolment(key, refusal)
        return
    if request.method in READS or not isinstance(refusal, Recorded) or credential is None:
        return
    actor = credential.actor
    flood: Flood = current_app.extensions["refused_acts"]
    unrecorded = flood.take(str(actor.id) if actor.user is not None else actor.name, monotonic())
    if unrecorded is None:
        return
    refused_acts.record(
        db.session(), actor, refusal, redacted(f"{request.method} {request.path}"), unrecorded=unrecorded
    )
    db.session.commit()


def _key_of(refusal: Refusal, credential: Credential | None) -> EnrolmentKey | None:
    """The enrolment key that was shown, good or not."""
    if isinstance(refusal, EnrolmentKeyOver):
        found: EnrolmentKey = refusal.key
        return found
    return credential.key if credential is not None else None


def _note_enrolment(key: EnrolmentKey, refusal: Refusal) -> None:
    """Write that a key was refused; by it those who watch the key see who tries what from where."""
    told = EnrolmentKeyOver | NotAllowed | NotFound | Invalid | BadRequest | ScopeTooSmall
    if request.method in READS or not isinstance(refusal, told):
        return
    flood: Flood = current_app.extensions["refused_acts"]
    unrecorded = flood.take(f"enrolment key {key.id}", monotonic())
    if unrecorded is None:
        return
    because = "It opens nothing but the creation of runners." if isinstance(refusal, ScopeTooSmall) else str(refusal)
    actor = actors.by_enrolment_key(key, address=client_address(), request_id=g.request_id)
    asked = redacted(f"{request.method} {request.path}")
    refused_acts.record_enrolment(db.session(), actor, key, because, asked, unrecorded=unrecorded)
    db.session.commit()
