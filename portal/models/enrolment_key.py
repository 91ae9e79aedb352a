"""Enrolment keys: secrets that can do nothing but create runners, in one scope, from one template."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    LargeBinary,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from portal.database import Base, now
from portal.models.group import Group
from portal.models.project import Project
from portal.models.user import User


class EnrolmentKey(Base):
    """One enrolment key. The columns from `description` to `token_expiration_interval` are its template.

    It is good until the day `expires_at` begins (UTC), for `most_runners` runners, and from the `networks` (CIDR;
    none stands for all). It can never do more than its creator may at that moment, so without a creator it
    does nothing.
    """

    __tablename__ = "enrolment_keys"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint("num_nonnulls(namespace_id, project_id) <= 1", name="one_scope"),
        CheckConstraint("runners_created BETWEEN 0 AND most_runners", name="no_more_than_allowed"),
        CheckConstraint("most_runners > 0", name="makes_something"),
        CheckConstraint("run_untagged OR cardinality(tag_list) > 0", name="tags_or_untagged"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    group_id: Mapped[int | None] = mapped_column(
        "namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"), index=True
    )
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    creator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    short: Mapped[str] = mapped_column(String(4))
    request_key: Mapped[UUID | None] = mapped_column(unique=True)

    description: Mapped[str] = mapped_column(String(1024), default="")
    maintenance_note: Mapped[str] = mapped_column(String(1024), default="")
    tag_list: Mapped[list[str]] = mapped_column(ARRAY(String(255)), default=list)
    run_untagged: Mapped[bool] = mapped_column(default=True)
    locked: Mapped[bool] = mapped_column(default=False)
    access_level: Mapped[int] = mapped_column(SmallInteger, default=0)
    maximum_timeout: Mapped[int | None]
    token_expiration_interval: Mapped[int | None]  # seconds that the tokens of its runners live

    most_runners: Mapped[int]
    runners_created: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    networks: Mapped[list[str]] = mapped_column(ARRAY(String(64)), default=list, server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[date]
    last_used_at: Mapped[datetime | None]
    last_used_address: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    revoked_at: Mapped[datetime | None]

    group: Mapped[Group | None] = relationship()
    project: Mapped[Project | None] = relationship()
    creator: Mapped[User | None] = relationship()
