"""What was deleted and can still be undone: hidden from every query that does not ask for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, String, event
from sqlalchemy.orm import (
    Mapped,
    ORMExecuteState,
    Session,
    declared_attr,
    mapped_column,
    relationship,
    with_loader_criteria,
)

from portal.database import Base, now
from portal.models.user import User

WITH_DELETED: dict[str, Any] = {"with_deleted": True}  # execution options of a query that wants the deleted ones too


class Deletion(Base):
    """One act of deleting, with all that went by it: one runner, many, or a group or project with what was below.

    `path` is where the group or project was; its route has made room since. From `final_at` on nobody can undo it any
    more, and what is left of it is being deleted. The row goes last.
    """

    __tablename__ = "deletions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # runner, runners, group or project
    name: Mapped[str] = mapped_column(String(1024))
    path: Mapped[str] = mapped_column(String(1024), default="")
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    actor_name: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    final_at: Mapped[datetime | None]

    user: Mapped[User | None] = relationship()


class Deletable:
    """A row that can be deleted and restored: it is deleted while `deletion_id` names the act that did it."""

    @declared_attr
    def deletion_id(cls) -> Mapped[int | None]:  # noqa: N805  (a declared attribute takes the class)
        return mapped_column(ForeignKey("deletions.id"))

    @declared_attr
    def deletion(cls) -> Mapped[Deletion | None]:  # noqa: N805
        return relationship()


@event.listens_for(Session, "do_orm_execute")
def _hide_what_was_deleted(state: ORMExecuteState) -> None:
    """Leave deleted rows out of every SELECT, UPDATE and DELETE; a forgotten condition would bring them back.

    What is reached from a row that was found (its group, its project) is not hidden, nor is what is read again.
    """
    if state.is_column_load or state.is_relationship_load or state.execution_options.get("with_deleted"):
        return
    if state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(_ALIVE)


_ALIVE = with_loader_criteria(
    Deletable, lambda cls: cls.deletion_id.is_(None), include_aliases=True, propagate_to_loaders=False
)
