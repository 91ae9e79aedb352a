"""The ground of everything stored: the declarative base, constraint names and the session."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from flask_sqlalchemy import SQLAlchemy
from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy import BigInteger, ColumnElement, DateTime, MetaData, cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, registry

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """What every model derives from; times are always stored with their zone."""

    registry = registry(
        metadata=MetaData(naming_convention=NAMES),
        type_annotation_map={datetime: DateTime(timezone=True)},
    )


db = SQLAlchemy(model_class=Base, disable_autonaming=True)


PARTITIONS = "p_ci_runner_machine_builds_"  # what the names of partitions begin with


def is_modelled(_: object, name: str | None, kind: str, reflected: bool, __: object) -> bool:
    """Whether a comparison with the models looks at a thing of the database: partitions are made as time goes by."""
    return not (kind == "table" and reflected and (name or "").startswith(PARTITIONS))


def ran_into_each_other(failure: BaseException) -> bool:
    """Whether the database gave one of two transactions up, as each waited for the other: sent again it succeeds."""
    return isinstance(failure, DBAPIError) and isinstance(failure.orig, DeadlockDetected | SerializationFailure)


def as_array(ids: Iterable[int]) -> ColumnElement[Any]:
    """These numbers as one parameter of a statement, however many they are."""
    return cast(list(ids), ARRAY(BigInteger))


def now() -> datetime:
    """The present moment in UTC: one place, so that nothing compares a naive time with an aware one."""
    return datetime.now(UTC)
