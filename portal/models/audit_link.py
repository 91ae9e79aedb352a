"""The chain of the trail: each event's place and hash, made by the database when the event is committed."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base
from portal.models.audit_event import AuditEvent


class AuditLink(Base):
    """One link. `hash` is SHA-256 of the previous link's hash and the event's text; positions have no gaps.

    Positions follow the order of commits, which ids do not. A trigger writes these rows; nothing else does.
    """

    __tablename__ = "audit_links"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(ForeignKey("audit_events.id"), unique=True)
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)

    event: Mapped[AuditEvent] = relationship()
