"""How migrations run: on the app's engine, one process at a time."""

from alembic import context
from flask import current_app
from sqlalchemy import text

from portal import models
from portal.database import Base, is_modelled

ONE_AT_A_TIME = 0x706F7274616C02  # advisory lock: several server processes may start at once

assert models.Runner.metadata is Base.metadata  # noqa: S101 (every table is known before the comparison)


def run() -> None:
    engine = current_app.extensions["migrate"].db.engine
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_AT_A_TIME})
        connection.commit()
        try:
            context.configure(
                connection=connection, target_metadata=Base.metadata, compare_type=True, include_object=is_modelled
            )
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ONE_AT_A_TIME})
            connection.commit()


run()
