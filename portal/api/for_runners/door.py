"""The blueprint of the runner API, its guard, and what its views share."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, current_app, g

from portal.api.params import Params, runner_token
from portal.database import db, now
from portal.domain.actors import Actor
from portal.domain.machines import machine_facts, runner_managers
from portal.domain.machines.heartbeats import Heartbeats
from portal.domain.machines.known_runners import KnownRunner, KnownRunners
from portal.domain.machines.runner_managers import Contact
from portal.models import LEGACY
from portal.requests import client_address, registration_configured

blueprint = Blueprint("runner_api", __name__, url_prefix="/api/v4")


@blueprint.before_request
def public() -> None:
    """Public by design: each view takes the runner's token from the body and refuses an unknown one."""


def known_runners() -> KnownRunners:
    found: KnownRunners = current_app.extensions["known_runners"]
    return found


def heartbeats() -> Heartbeats:
    found: Heartbeats = current_app.extensions["heartbeats"]
    return found


def authenticated(params: Params) -> KnownRunner:
    """The runner of the request's token. Raises BadRequest or TokenUnknown."""
    known = known_runners().find(db.session, runner_token(params))
    g.runner_id = known.runner_id  # for the log
    return known


def hear(known: KnownRunner, params: Params, *, polled: bool) -> None:
    """Take a machine's sign of life: into the memory when it has a row already, else into the database at once."""
    info = params.get("info")
    system_xid = machine_facts.read_system_id(params.get("system_id"))
    if system_xid == LEGACY:
        known_runners().refuse_too_old(db.session, known.runner_id, registration_configured())
    contact = Contact(
        runner_id=known.runner_id,
        token_id=known.token_id,
        system_xid=system_xid,
        at=now(),
        address=client_address(),
        polled=polled,
        facts=heartbeats().facts_of(known.runner_id, system_xid, info),
    )
    if heartbeats().note(contact, info):
        return
    runner_managers.record_contact(db.session(), contact)
    db.session.commit()
    heartbeats().remember(contact, info)


def machine(known: KnownRunner) -> Actor:
    """The actor for what a machine does with this runner's token."""
    return Actor("runner", f"runner {known.short}", known.runner_id, None, client_address(), g.request_id)


def rfc3339(moment: datetime | None) -> str | None:
    """A time as the client reads it: with its zone, or null for never; anything else loses the registration."""
    return moment.isoformat() if moment else None
