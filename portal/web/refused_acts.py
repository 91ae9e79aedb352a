"""Refused acts of signed-in people, put on the trail when their answer is made."""

from __future__ import annotations

from flask import request
from flask_login import current_user

from portal.database import db
from portal.domain import refused_acts
from portal.domain.errors import Hidden, NotAllowed, Refusal
from portal.request_logs import redacted
from portal.web import guards

READS = ("GET", "HEAD", "OPTIONS")


def note(refusal: Refusal) -> None:
    """Write, in a transaction of its own, that the person may not do what they asked for.

    What they may not even look at stands in the request log only: no GET changes anything.
    """
    if request.method in READS or not isinstance(refusal, NotAllowed | Hidden) or not current_user.is_authenticated:
        return
    refused_acts.record(db.session(), guards.actor(), refusal, redacted(f"{request.method} {request.path}"))
    db.session.commit()
