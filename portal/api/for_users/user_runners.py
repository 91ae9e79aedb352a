"""`POST /user/runners`, and `POST /runners` with an access token: new runners (reference/rest.md section 2.2)."""

from __future__ import annotations

from datetime import datetime

from flask import Response, after_this_request, g, url_for

from portal.addresses import absolute
from portal.api import credentials, idempotency, rate_limits
from portal.api.errors import as_sentence, restorable
from portal.api.for_users import door, enrolment, parameters, places
from portal.api.for_users.door import operation
from portal.api.for_users.operations import OPERATIONS, Answer
from portal.api.for_users.runner_creation import Creation
from portal.api.for_users.runner_shapes import NewRunner
from portal.database import db, now
from portal.domain.deletions import deletions
from portal.domain.errors import AlreadyIssued, BadRequest, Invalid, ParametersWrong, RunnerDeleted, Stale
from portal.domain.permissions import Action
from portal.domain.runners import runner_tokens, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.models import Runner, TokenScope

CREATE = (TokenScope.CREATE_RUNNER,)
ROOM = "Runners"
WRONG_END = "token_expires_at does not have a valid value: from 1 hour to 1825 days from now"


class ReplayedRunner(NewRunner):
    """The runner that the same request made before, without its token. `message` says how to get a new one."""

    message: str


@operation(
    "POST",
    "/user/runners",
    room=ROOM,
    status=201,
    also=(200,),
    refuses=(400, 404, 409, 422),
    opens=CREATE,
    enrolment=True,
    reads=(idempotency.HEADER,),
)
def create(given: Creation) -> Answer[ReplayedRunner | NewRunner]:
    """A new runner in a scope, with its token, which is shown in this answer only.

    With the header `Idempotency-Key` (1 to 255 visible ASCII characters) the same request sent again makes no second
    runner: it is answered with 200 and the first one, without its token.
    """
    try:
        issued = enrolment.create_with_key(g.credential.key, given) if g.credential.key else _issue(given)
        answer = NewRunner(id=issued.runner.id, token=issued.token, token_expires_at=issued.record.expires_at)
        db.session.commit()
    except AlreadyIssued as repeated:
        db.session.rollback()
        return Answer(_made_before(repeated), status=200, headers=idempotency.REPLAYED)
    except Invalid as invalid:
        raise BadRequest(as_sentence(invalid)) from None
    return Answer(answer)


@operation(
    "POST",
    "/runners",
    room=ROOM,
    status=201,
    also=(200,),
    refuses=(400, 404, 409, 410, 422),
    opens=CREATE,
    enrolment=True,
    reads=(idempotency.HEADER,),
    routed=False,
)
def create_in_scope(given: Creation) -> Answer[ReplayedRunner | NewRunner]:
    """The same as `POST /user/runners`. A body with a registration token in `token` registers a machine instead."""
    return create(given)


def answer_in_scope() -> Response:
    """Carry `POST /runners` out; its path belongs to the door for machines."""
    after_this_request(rate_limits.tell)
    after_this_request(parameters.tell_unknown)
    asked = OPERATIONS[f"user_runners_{create_in_scope.__name__}"]
    door.admit(asked)
    return door.run(asked, {})


def settings_of(given: Creation) -> RunnerSettings:
    """The settings that are asked for, with GitLab's defaults: unlocked, untagged jobs too."""
    return RunnerSettings(
        description=given.description or "",
        maintenance_note=given.maintenance_note or "",
        tags=given.tag_list,
        run_untagged=given.run_untagged is not False,
        paused=bool(given.paused),
        protected=given.access_level == "ref_protected",
        locked=bool(given.locked),
        maximum_timeout=given.maximum_timeout,
        token_expiration_interval=_life_until(given.token_expires_at),
    )


def _life_until(moment: datetime | None) -> int | None:
    """How many seconds the runner's tokens live."""
    return None if moment is None else round((moment - now()).total_seconds())


def scope_of(given: Creation) -> Scope:
    """The scope that is asked for, if who asks may see it. Raises ParametersWrong, NotFound or NotAllowed."""
    match given.runner_type:
        case "instance_type":
            return places.instance(Action.WRITE_RUNNERS)
        case "group_type":
            return places.group(_needed("group_id", given.group_id))
        case "project_type":
            return places.project(_needed("project_id", given.project_id))
        case _:
            raise ParametersWrong(["runner_type is missing"])


def _needed(name: str, value: int | None) -> int:
    if value is None:
        raise ParametersWrong([f"{name} is missing"])
    return value


def _issue(given: Creation) -> IssuedRunner:
    """Raises ParametersWrong for a `token_expires_at` too near or too far, but a repetition is answered first."""
    scope, settings = scope_of(given), settings_of(given)
    once = idempotency.of_creation(scope, settings, given.token_expires_at)
    try:
        return runners.create_runner(
            db.session(),
            credentials.actor(),
            scope,
            settings,
            request_key=once.request_key,
            request_digest=once.request_digest,
        )
    except Invalid as invalid:
        if "token_expiration_interval" not in invalid.problems:
            raise
        raise ParametersWrong([WRONG_END]) from None


def _made_before(repeated: AlreadyIssued) -> ReplayedRunner:
    """The runner of the first answer. Raises Stale when it was deleted since."""
    session, runner_id = db.session(), repeated.runner_id
    runner = session.get(Runner, runner_id, populate_existing=True)
    if runner is None or runner.deletion_id is not None:
        raise _deleted(runner_id)
    page = absolute(url_for("runner_links.show", runner_id=runner_id))
    return ReplayedRunner(
        id=runner_id,
        token=None,
        token_expires_at=runner_tokens.last_issued(session, runner).expires_at,
        message=(
            "This Idempotency-Key was sent before and has created this runner. Its token was shown in the first "
            "answer and cannot be shown again. If it is lost, reset it: "
            f"POST /api/v4/runners/{runner_id}/reset_authentication_token, or at {page}"
        ),
    )


def _deleted(runner_id: int) -> Stale:
    gone = deletions.refusal_of(db.session(), runner_id)
    what = restorable(gone) if isinstance(gone, RunnerDeleted) else str(gone)
    return Stale(
        f"This Idempotency-Key was sent before and has created the runner {runner_id}. {what}. "
        "To create another one, send another key."
    )
