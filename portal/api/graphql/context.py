"""What the resolvers of one query share: who asks, since when, and how much has been handed out already."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from graphql import GraphQLResolveInfo
from sqlalchemy.orm import Session

from portal.api.credentials import Credential
from portal.api.graphql.budget import Budget
from portal.api.graphql.problems import ArgumentWrong
from portal.domain.actors import Actor
from portal.domain.errors import Refusal

MOST_NODES = 20_000  # in all the lists of one answer


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
    _asked_of: dict[int, object] = field(default_factory=dict)

    def hand_out(self, nodes: int) -> None:
        """Count the nodes of one more page. Raises ArgumentWrong for too many."""
        self.nodes += nodes
        if self.nodes > MOST_NODES:
            raise ArgumentWrong(
                f"An answer has at most {MOST_NODES:,} nodes in all its lists: ask for shorter pages."
            )

    def one_at_a_time(self, info: GraphQLResolveInfo[Any], parent: object) -> None:
        """Refuse a field that asks the database for each parent anew when it is asked of a second one.

        Raises ArgumentWrong. Each place in the query counts by itself.
        """
        if self._asked_of.setdefault(id(info.field_nodes[0]), parent) != parent:
            raise ArgumentWrong(
                f"'{info.field_name}' can be asked of one {info.parent_type.name} at a time: "
                f"start from {info.parent_type.name.lower()}(fullPath: …) for each."
            )


Info = GraphQLResolveInfo[Context]


def of(info: Info) -> Context:
    """The context of the query that is being answered."""
    found: Context = info.context
    return found
