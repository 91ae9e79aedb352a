"""What the answers to one request may take, all its queries together: how many characters, and how much time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from graphql import GraphQLResolveInfo

from portal.api.graphql.problems import AnswerTooLarge, TookTooLong
from portal.domain.errors import Refusal

MOST_CHARACTERS = 10_000_000  # of all values with their names, which the asker chooses
LONGEST = 20.0  # seconds
AROUND = 10  # characters that a value takes besides: quotes and commas, or what it is when it is no text


class Stopped(BaseException):
    """Ends a query where it stands. An Exception would pass for the failure of one field, and the others go on."""

    def __init__(self, because: Refusal) -> None:
        super().__init__()
        self.because = because


@dataclass(slots=True)
class Budget:
    """How much of it is spent."""

    characters: int = 0
    deadline: float = field(default_factory=lambda: monotonic() + LONGEST)

    def spend(self, characters: int) -> None:
        """Count so many more. Raises Stopped when they are too many, or when it is late."""
        self.characters += characters
        if self.characters > MOST_CHARACTERS:
            raise Stopped(AnswerTooLarge())
        self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """Raise Stopped when it is late."""
        if monotonic() > self.deadline:
            raise Stopped(TookTooLong())


def counted(resolve: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], /, **arguments: Any) -> Any:
    """A middleware for all fields: what each answers is counted, under the name that the query gives it."""
    budget: Budget = info.context.budget
    budget.spend(len(str(info.path.key)) + AROUND)
    value = resolve(source, info, **arguments)
    if isinstance(value, str):
        budget.spend(len(value))
    elif isinstance(value, list):
        budget.spend(sum(len(each) for each in value if isinstance(each, str)))
    return value
