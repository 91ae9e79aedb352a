"""Refused registrations of machines, put on the trail as far as a flood of them leaves it readable."""

from __future__ import annotations

from time import monotonic

from flask import current_app, g

from portal.database import db
from portal.domain.errors import Refusal, RegistrationOff, RegistrationTokenUnknown
from portal.domain.trail import refused_acts
from portal.domain.trail.refused_acts import Flood
from portal.requests import client_address


def note(refusal: Refusal) -> None:
    """Write, in a transaction of its own, that a machine could not register here; once an address and minute."""
    if not isinstance(refusal, RegistrationOff | RegistrationTokenUnknown):
        return
    flood: Flood = current_app.extensions["refused_registrations"]
    unrecorded = flood.take(client_address(), monotonic())
    if unrecorded is None:
        return
    refused_acts.record_registration(
        db.session(), refusal, address=client_address(), request_id=g.request_id, unrecorded=unrecorded
    )
    db.session.commit()
