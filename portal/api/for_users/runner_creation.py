"""What a script may say of a new runner (reference/rest.md section 2.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from portal.api.for_users.parameters import (
    OptionalFlag,
    OptionalId,
    OptionalNumber,
    OptionalText,
    Parameters,
    Words,
)


def _moment(value: Any) -> datetime | None:
    """A moment as ISO 8601 has it; without a zone it is UTC."""
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("moment", "is invalid") from None


_MOMENT = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}, {"type": "string", "maxLength": 0}]}
OptionalMoment = Annotated[datetime | None, BeforeValidator(_moment), WithJsonSchema(_MOMENT)]


class Creation(Parameters):
    """A new runner. Whoever shows an access token says in which scope; an enrolment key has one of its own.

    `token_expires_at` lies from one hour to five years ahead. Every token that the runner gets later lives as long,
    unless its scopes say less.
    """

    runner_type: Literal["instance_type", "group_type", "project_type"] | None = None
    group_id: OptionalId = None
    project_id: OptionalId = None
    description: OptionalText = None
    maintenance_note: OptionalText = None
    paused: OptionalFlag = None
    locked: OptionalFlag = None
    access_level: Literal["not_protected", "ref_protected"] | None = None
    run_untagged: OptionalFlag = None
    tag_list: Words = ()
    maximum_timeout: OptionalNumber = None
    token_expires_at: OptionalMoment = None
