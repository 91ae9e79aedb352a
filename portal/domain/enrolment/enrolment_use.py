"""Using an enrolment key: it creates a runner from its template, and reads the runners that it made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors, permissions
from portal.domain.actors import Actor
from portal.domain.enrolment import enrolment_keys, enrolment_networks
from portal.domain.errors import (
    NOTHING_HERE,
    BadRequest,
    EnrolmentKeyOver,
    EnrolmentRefused,
    NotAllowed,
    NotFound,
)
from portal.domain.permissions import Action
from portal.domain.runners import runner_creation, runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner, refuse_repeated
from portal.domain.scopes import Scope, is_there
from portal.models import EnrolmentKey, Runner, RunnerType

A_NEW_ONE = "Ask those who look after its runners for a new key."


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of the runner that it wants; None where it says nothing.

    Description, note and `paused` are its own to choose: they name a runner, or keep it from jobs. All else decides
    which jobs a runner gets, so it may only repeat what the key's template says.
    """

    description: str | None = None
    maintenance_note: str | None = None
    paused: bool | None = None
    tags: tuple[str, ...] | None = None
    run_untagged: bool | None = None
    locked: bool | None = None
    protected: bool | None = None
    maximum_timeout: int | None = None
    runner_type: RunnerType | None = None
    group_id: int | None = None
    project_id: int | None = None
    tokens_end: bool = False  # it says when the runner's tokens end


def enrol(
    session: Session,
    key: EnrolmentKey,
    asked: Asked,
    *,
    address: str,
    request_id: str,
    request_key: UUID | None = None,
    request_digest: bytes | None = None,
) -> IssuedRunner:
    """A new runner by a key that was found, in the key's scope and as its template says; one of its runners is used.

    All is looked at once more while the key is held, so that of many requests at once exactly as many succeed as the
    key allows; a refusal uses none, nor does a repetition, by `request_key`. Raises EnrolmentKeyOver,
    EnrolmentRefused, BadRequest for what the template settles otherwise, Invalid, LimitReached, AlreadyIssued and
    KeyReused.
    """
    scope = enrolment_keys.scope_of(key)
    if not is_there(session, scope):
        raise EnrolmentKeyOver("The group or project of this enrolment key was deleted.", key=key)
    key = enrolment_keys.hold(session, key.id)
    enrolment_keys.require_good(key)
    require_network(key, address)
    refuse_repeated(session, request_key, request_digest)
    if key.runners_created >= key.most_runners:
        made = "the one runner" if key.most_runners == 1 else f"the {key.most_runners} runners"
        raise _refused(f"This enrolment key has created {made} that it may. {A_NEW_ONE}", scope)
    actor = actors.by_enrolment_key(key, acting=True, address=address, request_id=request_id)
    _require_creator_may(session, actor, scope)
    settings = _settings(key, scope, asked)
    issued = runners.create_runner(
        session,
        actor,
        scope,
        settings,
        request_key=request_key,
        request_digest=request_digest,
        enrolled_with=key,
    )
    key.runners_created += 1
    key.last_used_at, key.last_used_address = now(), address
    session.flush()
    return issued


def made_by(session: Session, key: EnrolmentKey, runner_id: int, *, address: str) -> Runner:
    """The runner with this number, if this key made it. Raises NotFound, or EnrolmentRefused.

    A key that is used up reads on: the tools that created a runner look at it again.
    """
    require_network(key, address)
    actor = actors.by_enrolment_key(key, acting=True, address=address)
    _require_creator_may(session, actor, enrolment_keys.scope_of(key))
    found = session.scalar(select(Runner).where(Runner.id == runner_id, Runner.enrolled_with_id == key.id))
    if found is None:
        raise NotFound(NOTHING_HERE)
    return found


def require_network(key: EnrolmentKey, address: str) -> None:
    """Refuse with EnrolmentRefused what comes from elsewhere than the key's networks, where it has any."""
    if not key.networks or enrolment_networks.is_within(address, key.networks):
        return
    raise _refused(
        f"This enrolment key may not be used from {address or 'an unknown address'}: it works from some networks "
        "only. Its page in the portal says which.",
        enrolment_keys.scope_of(key),
    )


def _require_creator_may(session: Session, actor: Actor, scope: Scope) -> None:
    """Refuse with EnrolmentRefused when the key's creator may not create runners in its scope at this moment."""
    try:
        runner_creation.require_may_create(session, actor, scope)
    except (NotAllowed, NotFound):
        if permissions.may(session, actor, Action.WRITE_RUNNERS, scope):
            raise _refused(f"{runner_creation.closed_because(session, scope)} {A_NEW_ONE}", scope) from None
        raise _refused(
            f"Whoever made this enrolment key may not create runners in {scope.title} any more, so the key may not "
            f"either. {A_NEW_ONE}",
            scope,
        ) from None


def _refused(sentence: str, scope: Scope) -> EnrolmentRefused:
    return EnrolmentRefused(sentence, action=Action.WRITE_RUNNERS.value, where=scope)


def _settings(key: EnrolmentKey, scope: Scope, asked: Asked) -> RunnerSettings:
    """The template with what the request may choose. Raises EnrolmentRefused or BadRequest for what it may not."""
    _require_scope(scope, asked)
    template = enrolment_keys.template_of(key)
    if settled := _contradictions(template, asked):
        raise BadRequest(" ".join(settled))
    own = {name: getattr(asked, name) for name in ("description", "maintenance_note") if getattr(asked, name)}
    return replace(template, paused=bool(asked.paused), **own)


def _require_scope(scope: Scope, asked: Asked) -> None:
    mine = (scope.runner_type, scope.group and scope.group.id, scope.project and scope.project.id)
    wanted = (asked.runner_type, asked.group_id, asked.project_id)
    if any(value is not None and value != own for value, own in zip(wanted, mine, strict=True)):
        number = f" with {scope.kind}_id {scope.id}" if scope.id is not None else ""
        raise _refused(
            f"This enrolment key creates runners in {scope.title} only, as {scope.kind}_type{number}. Leave "
            "runner_type, group_id and project_id out, or send these.",
            scope,
        )


def _contradictions(template: RunnerSettings, asked: Asked) -> list[str]:
    """What the request says otherwise than the template, by GitLab's names, with what the template says."""
    found = {}
    if asked.tags is not None and set(asked.tags) != set(template.tags):
        found["tag_list"] = ", ".join(template.tags) or "no tags"
    if asked.protected is not None and asked.protected != template.protected:
        found["access_level"] = "ref_protected" if template.protected else "not_protected"
    for name in ("run_untagged", "locked"):
        if getattr(asked, name) is not None and getattr(asked, name) != getattr(template, name):
            found[name] = "true" if getattr(template, name) else "false"
    if asked.maximum_timeout is not None and asked.maximum_timeout != template.maximum_timeout:
        found["maximum_timeout"] = str(template.maximum_timeout or "none")
    if asked.tokens_end:
        life = template.token_expiration_interval
        found["token_expires_at"] = f"tokens live {life} seconds" if life else "tokens live as long as its scope says"
    return [
        f"{name} is settled by the enrolment key: {value}. Leave it out"
        + ("." if name == "token_expires_at" else ", or send the same.")
        for name, value in found.items()
    ]
