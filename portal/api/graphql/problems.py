"""What goes wrong with a query, and how an answer says it: the classes of GitLab's GraphQL errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from graphql import GraphQLError
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError

from portal.domain.errors import BadRequest, Refusal
from portal.request_logs import redacted

log = logging.getLogger(__name__)

# One sentence for what is missing and for what is forbidden: nobody may tell them apart by it.
NOT_AVAILABLE = "There is nothing here, or you may not do this with it."
FAILED = "Internal server error"
MOST_TOLD = 50


class ArgumentWrong(GraphQLError):
    """An argument cannot be taken; the sentence says which, and what to send instead."""


class NotAvailable(GraphQLError):
    """What was asked for is not there, or is not the asker's: nobody hears which."""

    def __init__(self) -> None:
        super().__init__(NOT_AVAILABLE)


class RequestWrong(Refusal):
    """The request as a whole cannot be read, or asks for too much."""


class AnswerTooLarge(RequestWrong):
    """The answers of the request would be too long: nothing of them is sent, and nothing was changed."""

    def __init__(self) -> None:
        super().__init__(
            "The answer would be too large, so nothing was changed. Ask for less: shorter pages, fewer fields."
        )


class TookTooLong(Refusal):
    """The answer was not ready in time: nothing of it is sent, and nothing was changed."""

    def __init__(self) -> None:
        super().__init__(
            "The answer took too long, so nothing was changed. Ask for less at once: shorter pages, fewer filters."
        )


def told(errors: Sequence[GraphQLError]) -> list[dict[str, Any]]:
    """The errors as they are answered: the first MOST_TOLD, as one cause can fail for every node of a list.

    Raises the DBAPIError by which a field failed: the transaction is lost by it, and with it what other fields, or
    other queries of the request, have changed and told of.
    """
    for each in errors:
        if isinstance(each.original_error, DBAPIError):
            raise each.original_error
    return [_told(each) for each in errors[:MOST_TOLD]]


def _told(error: GraphQLError) -> dict[str, Any]:
    """One error. Of our own failures nothing is told; the log has them, without the values of the query.

    Messages repeat values that do not fit. A token among them is left out: scripts print errors into their logs.
    """
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return {**error.formatted, "message": redacted(error.message)}
    if isinstance(cause, BadRequest):
        message = str(cause)
    elif isinstance(cause, Refusal):
        message = NOT_AVAILABLE
    else:
        message = FAILED
        log.error("a field of a query failed", exc_info=cause)
    kept = {name: value for name, value in error.formatted.items() if name in ("locations", "path")}
    return {"message": message, **kept}


def is_timeout(failure: BaseException | None) -> bool:
    """Whether the database gave up because a statement took too long."""
    return isinstance(failure, DBAPIError) and isinstance(failure.orig, QueryCanceled)
