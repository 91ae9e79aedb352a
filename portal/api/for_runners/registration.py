"""Registering, verifying and unregistering machines, and a machine's own token reset."""

from __future__ import annotations

import re
from uuid import UUID

from flask import Response, g, jsonify, request

from portal.api import credentials, params
from portal.api.errors import restorable
from portal.api.for_runners.door import (
    authenticated,
    blueprint,
    hear,
    heartbeats,
    known_runners,
    machine,
    rfc3339,
)
from portal.api.for_users import user_runners
from portal.api.params import Params
from portal.database import db
from portal.domain import tokens
from portal.domain.deletions import deletions
from portal.domain.errors import BadRequest, RunnerDeleted, TokenUnknown, TryLater
from portal.domain.machines import machine_facts, runner_managers
from portal.domain.machines.known_runners import KnownRunner
from portal.domain.registration import registration as domain
from portal.domain.registration import runner_registration
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Runner
from portal.requests import client_address, portal_url, registration_configured, settings

NO_CONTENT = 204
OF_MACHINES = (tokens.CREATED, tokens.REGISTERED, tokens.REGISTRATION)  # how tokens begin that are no person's


@blueprint.post("/runners/verify")
def verify() -> Response:
    """200 with id, token and expiry for a good token; makes or refreshes the manager."""
    given = params.read()
    known = authenticated(given)
    hear(known, given, polled=False)
    return jsonify(id=known.runner_id, token=params.runner_token(given), token_expires_at=rfc3339(known.expires_at))


@blueprint.post("/runners")
def register() -> Response | tuple[Response, int]:
    """201 with id, `glrtr-` token and expiry of a new runner in the registration token's scope.

    403 for a token that nobody has, 410 where registration tokens are off, 400 with GitLab's hash of messages.
    With an access token in a header and no token in the body, a person's script creates a runner instead.
    """
    if _is_of_a_person():
        return user_runners.answer_in_scope()
    given = params.read()
    token = params.runner_token(given)
    domain.refuse_while_off(db.session(), registration_configured())  # before anything else can be wrong
    wanted = Registering(
        token=token,
        settings=_wanted(given),
        facts=machine_facts.read_facts(given.get("info")),
        address=client_address(),
        request_id=g.request_id,
        request_key=_request_key(),
    )
    issued = runner_registration.register(db.session(), registration_configured(), wanted)
    expires_at = rfc3339(issued.record.expires_at)
    # Written before the commit: after it the runner may be gone again, deleted together with its group.
    answer = jsonify(id=issued.runner.id, token=issued.token, token_expires_at=expires_at)
    db.session.commit()
    return answer, 201


def _is_of_a_person() -> bool:
    """Whether a script asks with an access token or an enrolment key, and no machine with a token of its own.

    Machines send theirs in the body; clients 16.10 to 17.10 repeat it as PRIVATE-TOKEN, newer ones as RUNNER-TOKEN.
    """
    shown = credentials.given()
    if not shown or shown.startswith(OF_MACHINES) or request.headers.get("Runner-Token"):
        return False
    request.get_data()  # keeps the body: whoever answers reads it once more
    return not params.read().get("token")


def _wanted(given: Params) -> RunnerSettings:
    """The settings in a registration. Defaults as in GitLab: unlocked, untagged jobs too (rest.md section 1.1)."""
    note = params.only_one(given, "maintainer_note", "maintenance_note")
    pausing = params.only_one(given, "active", "paused")
    paused = params.flag(given, pausing) or False
    untagged = params.flag(given, "run_untagged")
    level = params.text(given, "access_level") or "not_protected"
    if level not in ("not_protected", "ref_protected"):
        raise BadRequest("access_level does not have a valid value: not_protected or ref_protected")
    return RunnerSettings(
        description=params.text(given, "description"),
        maintenance_note=params.text(given, note),
        tags=params.tags(given),
        run_untagged=True if untagged is None else untagged,
        paused=not paused if pausing == "active" else paused,
        protected=level == "ref_protected",
        locked=params.flag(given, "locked") or False,
        maximum_timeout=params.number(given, "maximum_timeout"),
    )


def _request_key() -> UUID | None:
    """What a client from 18.3 on repeats when it sends the same request again; older ones send nothing."""
    sent = request.headers.get("X-Request-Id", "")
    return UUID(sent) if re.fullmatch("[0-9a-f]{32}", sent) else None


@blueprint.delete("/runners/managers")
def unregister_manager() -> Response:
    """204, and only this machine's row is gone; 404 when there was none."""
    given = params.read()
    known = authenticated(given)
    if not given.get("system_id"):
        raise BadRequest("system_id is missing")
    system_xid = machine_facts.read_system_id(given["system_id"])
    runner_managers.remove(db.session(), machine(known), _row(known), system_xid)
    db.session.commit()
    heartbeats().forget_runner(known.runner_id)
    return Response(status=NO_CONTENT)


@blueprint.delete("/runners")
def unregister() -> Response:
    """204. A runner that a registration token made is deleted (people can undo it); one of a person never is.

    15.11 and older send this for `glrt-` tokens as well, naming no machine: then the manager goes when it
    is the only one, and nothing happens when there are several, for nobody can tell which.
    """
    known = authenticated(params.read())
    runner = _row(known)
    if known.created_by_person:
        runner_managers.remove_only_one(db.session(), machine(known), runner)
    else:
        runners.unregister(db.session(), machine(known), runner)
    db.session.commit()
    known_runners().forget(known.runner_id)
    heartbeats().forget_runner(known.runner_id)
    return Response(status=NO_CONTENT)


@blueprint.post("/runners/reset_authentication_token")
def reset_authentication_token() -> tuple[Response, int]:
    """201 with one more token of the runner's family; the old one ends after the grace period.

    A client whose reset fails tries again at once, for ever; 429 with Retry-After is the answer it waits after.
    """
    given = params.read()
    try:
        issued = runner_tokens.reset_token_by_machine(
            db.session(),
            params.runner_token(given),
            grace=settings().token_grace,
            address=client_address(),
            request_id=g.request_id,
        )
    except RunnerDeleted as deleted:
        raise TryLater(restorable(deleted), 60) from None
    except TokenUnknown:
        raise TryLater(
            "This token has ended or belongs to no runner, so it cannot be reset. Reset it in the browser: "
            + portal_url("/"),
            60,
        ) from None
    runner_id = issued.runner.id
    answer = jsonify(token=issued.token, token_expires_at=rfc3339(issued.record.expires_at))
    db.session.commit()
    known_runners().forget(runner_id)
    return answer, 201


def _row(known: KnownRunner) -> Runner:
    runner = db.session.get(Runner, known.runner_id)
    if runner is None:
        raise deletions.refusal_of(db.session(), known.runner_id)
    return runner
