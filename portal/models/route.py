"""The full paths of groups and projects, in one table, so that no two of them can share one."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.database import Base


class Route(Base):
    """The path of one group or one project, such as `acme/platform`; unique whatever the case."""

    __tablename__ = "routes"
    __table_args__ = (
        CheckConstraint("num_nonnulls(namespace_id, project_id) = 1", name="one_owner"),
        Index("uq_routes_path_lower", text("lower(path)"), unique=True),
        Index(
            "ix_routes_path_pattern",
            literal_column("lower(path)").label("lower_path"),
            postgresql_ops={"lower_path": "text_pattern_ops"},
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    path: Mapped[str] = mapped_column(String(4096))
    group_id: Mapped[int | None] = mapped_column(
        "namespace_id", ForeignKey("namespaces.id", ondelete="CASCADE"), unique=True
    )
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), unique=True)
