"""The migrations: numbered without gaps, and equal to the models."""

import re

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Session

from portal.config import ROOT
from portal.database import is_modelled
from portal.models import Runner

COMPARED = {"compare_type": True, "include_object": is_modelled}
FOLDER = ROOT / "migrations" / "versions"


def test_migrations_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in FOLDER.glob("*.py"))
    assert names
    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]
    assert all(re.fullmatch(r"\d{4}(_[a-z0-9]+)+\.py", name) for name in names)


def test_each_migration_follows_the_one_before_it() -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    chain = [(script.revision, script.down_revision) for script in scripts.walk_revisions()][::-1]
    numbers = [path.name[:4] for path in sorted(FOLDER.glob("*.py"))]
    assert chain == list(zip(numbers, [None, *numbers], strict=False))


def test_the_migrated_database_is_what_the_models_say(session: Session) -> None:
    migrations = MigrationContext.configure(session.connection(), opts=COMPARED)
    assert compare_metadata(migrations, Runner.metadata) == []


def test_the_comparison_would_see_a_difference(session: Session) -> None:
    session.connection().exec_driver_sql("ALTER TABLE ci_runners DROP COLUMN revision")
    migrations = MigrationContext.configure(session.connection(), opts=COMPARED)
    assert [difference[0] for difference in compare_metadata(migrations, Runner.metadata)] == ["add_column"]
