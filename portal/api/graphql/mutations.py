"""How a mutation is carried out: by itself, undone when it is refused, and how its payload tells of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ariadne import MutationType

from portal.api.errors import FIELDS
from portal.api.graphql import context
from portal.api.graphql.context import Info
from portal.api.graphql.problems import ArgumentWrong, NotAvailable
from portal.domain.errors import BadRequest, Invalid, LimitReached, NotAllowed, NotFound, Refusal

Payload = dict[str, Any]
Act = Callable[..., Payload]


def changes(mutation: MutationType, name: str) -> Callable[[Act], Act]:
    """Make a function the mutation of this name: it takes the context and the fields of the input.

    It returns what stands in the payload besides `errors` and `clientMutationId`. What it refuses changes nothing:
    the savepoint of this field is rolled back, and those of other fields stand.
    """

    def made(act: Act) -> Act:
        def resolve(_root: None, info: Info, input: dict[str, Any]) -> Payload:
            asked, given = context.of(info), dict(input)
            payload: Payload = {"client_mutation_id": given.pop("client_mutation_id", None), "errors": []}
            try:
                with asked.session.begin_nested():
                    return payload | act(asked, given)
            except Refusal as refusal:
                asked.refusals.append(refusal)
                return payload | {"errors": said(refusal)}

        mutation.set_field(name, resolve)
        return act

    return made


def said(refusal: Refusal) -> list[str]:
    """What is wrong with the values, or what the rules forbid at present.

    Raises NotAvailable for what is not there or not the asker's by their role, ArgumentWrong for what is unreadable.
    """
    if isinstance(refusal, Invalid):
        return [
            _full(field, sentence, refusal) for field, sentences in refusal.problems.items() for sentence in sentences
        ]
    if isinstance(refusal, NotFound) or (isinstance(refusal, NotAllowed) and refusal.action):
        raise NotAvailable
    if isinstance(refusal, BadRequest):
        raise ArgumentWrong(str(refusal))
    return [str(refusal)]


def _full(field: str, sentence: str, refusal: Invalid) -> str:
    """A message with its field in front, in GitLab's words where it has any; of a limit with ours as well."""
    gitlab = getattr(sentence, "gitlab", None)
    words = FIELDS.get(field, field).replace("_", " ").capitalize()
    if isinstance(refusal, LimitReached) and gitlab:
        return f"{gitlab}: {sentence}"
    if field == "base":
        return gitlab or sentence
    return f"{words} {gitlab}" if gitlab else f"{words}: {sentence}"


def numbered(ids: Sequence[int]) -> str:
    """Runners by their numbers, for a message."""
    return ", ".join(f"#{each}" for each in ids)
