"""Refused acts of signed-in people, put on the trail when their answer is made."""

from __future__ import annotations

from time import monotonic

from flask import current_app, request
from flask_login import current_user

from portal.database import db
from portal.domain.errors import Refusal
from portal.domain.trail import refused_acts
from portal.domain.trail.refused_acts import Flood, Recorded
from portal.request_logs import redacted
from portal.web import guards

READS = ("GET", "HEAD", "OPTIONS")


def note(refusal: Refusal) -> None:
    """Write, in a transaction of its own, that the person may not do what they asked for.

    What they may not even look at stands in the request log only: no GET changes anything. So does what they try
    more often than thirty times a minute.
    """
    if request.method in READS or not isinstance(refusal, Recorded) or not current_user.is_authenticated:
        return
    flood: Flood = current_app.extensions["refused_acts"]
    unrecorded = flood.take(str(guards.actor().id), monotonic())
    if unrecorded is None:
        return
    asked = redacted(f"{request.method} {request.path}")
    refused_acts.record(db.session(), guards.actor(), refusal, asked, unrecorded=unrecorded)
    db.session.commit()
