"""Refused acts of people's scripts, put on the trail when their answer is made."""

from __future__ import annotations

from time import monotonic

from flask import current_app, g, request

from portal.api.credentials import READS, Credential
from portal.database import db
from portal.domain import refused_acts
from portal.domain.errors import Refusal
from portal.domain.refused_acts import Flood, Recorded
from portal.request_logs import redacted


def note(refusal: Refusal) -> None:
    """Write, in a transaction of its own, that the script may not do what it asked for.

    What it may not even look at stands in the request log only: no GET changes anything. Of the same person's
    refusals no more than thirty a minute are written, through whichever door.
    """
    credential: Credential | None = g.get("credential")
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
