"""What the resolvers of one query share: who asks, since when, and how much has been handed out already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from graphql import GraphQLResolveInfo
from graphql.pyutils import Path
from sqlalchemy.orm import Session

from portal.api.credentials import Credential
from portal.api.graphql.budget import Budget
from portal.api.graphql.problems import ArgumentWrong
from portal.domain.actors import Actor
from portal.domain.errors import Refusal

MOST_NODES = 20_000  # in all the lists of one answer
Place = tuple[str | int, int]  # a field of a query: below which field of its beginning, and which it is there
V = TypeVar("V")
_STARTS = {"CiRunner": "runner(id: …)"}


@dataclass(slots=True)
class Context:
    """One query of one asker. `credential` is None for a visitor, whose actor may do nothing.

    `budget` is shared by the queries of a request. `refusals` are those of its mutations, for the trail; `replayed`
    says that a creation was carried out before.
    """

    session: Session
    actor: Actor
    credential: Credential | None
    at: datetime
    budget: Budget
    score: int = 0
    limit: int = 0
    nodes: int = 0
    replayed: bool = False
    refusals: list[Refusal] = field(default_factory=list)
    _asked_of: dict[Place, object] = field(default_factory=dict)
    _answered: dict[Place, Any] = field(default_factory=dict)

    def hand_out(self, nodes: int) -> None:
        """Count the nodes of one more page. Raises ArgumentWrong for too many."""
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            raise ArgumentWrong(
                f"An answer has at most {MOST_NODES:,} nodes in all its lists: ask for shorter pages."
            )

    def one_at_a_time(self, info: GraphQLResolveInfo[Any], parent: object, answer: Callable[[], V]) -> V:
        """What `answer` gives, of a field that asks the database for each parent anew: refused for a second parent.

        Asked again of the same one, as from each of its jobs, it is the same answer. Each place in the query counts
        by itself. Raises ArgumentWrong, and what `answer` raises.
        """
        place = (_beginning(info.path), id(info.field_nodes[0]))
        if self._asked_of.setdefault(place, parent) != parent:
            kind = info.parent_type.name
            start = _STARTS.get(kind, f"{kind.lower()}(fullPath: …)")
            raise ArgumentWrong(
                f"'{info.field_name}' can be asked of one {kind} at a time: start from {start} for each."
            )
        if place not in self._answered:
            self._answered[place] = answer()
        found: V = self._answered[place]
        return found


def _beginning(path: Path) -> str | int:
    """The name of the field of Query or Mutation below which this is."""
    while path.prev is not None:
        path = path.prev
    return path.key


Info = GraphQLResolveInfo[Context]


def of(info: Info) -> Context:
    """The context of the query that is being answered."""
    found: Context = info.context
    return found
