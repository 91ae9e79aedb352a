"""speed: what lists are found by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Each runner tells the groups above it, so that a list of a group needs no look at the thousands below it. Groups and
# projects never move to another group; a runner may get another owner.
GROUPS_OF = """
CREATE FUNCTION ci_runners_group_ids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.group_ids := coalesce(
    (SELECT n.traversal_ids FROM namespaces n WHERE n.id = NEW.namespace_id),
    (SELECT n.traversal_ids FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = NEW.project_id),
    '{}');
  RETURN NEW;
END $$
"""
TRIGGER = (
    "CREATE TRIGGER ci_runners_group_ids BEFORE INSERT OR UPDATE OF namespace_id, project_id, group_ids "
    "ON ci_runners FOR EACH ROW EXECUTE FUNCTION ci_runners_group_ids()"
)
FILL = "UPDATE ci_runners SET group_ids = '{}' WHERE runner_type <> 1"  # the trigger says what it is

# The trail's indexes are in the order of time, each for what a page of the trail is asked by.
TRAIL = {
    "created_at_id": ["created_at", "id"],
    "actor_kind": ["actor_kind", "created_at", "id"],
    "actor_id": ["actor_id", "actor_kind", "created_at", "id"],
    "action": ["action", "created_at", "id"],
    "target": ["target_id", "target_kind", "created_at", "id"],
    "project_id": ["project_id", "created_at", "id"],
}
TRAIL_BEFORE = {
    "created_at": ["created_at"],
    "actor": ["actor_kind", "actor_id", "id"],
    "action": ["action", "id"],
    "target": ["target_kind", "target_id", "id"],
    "project_id": ["project_id", "id"],
}
LEVELS = range(1, 6)

# The queue is vacuumed by how many of its rows have gone, however long it is, as the models say.
VACUUM = {
    "ci_pending_builds": {
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 2000,
        "autovacuum_vacuum_cost_delay": 0,
        "autovacuum_analyze_scale_factor": 0.1,
        "vacuum_index_cleanup": "on",
        "vacuum_truncate": "off",
    },
    "ci_builds": {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02},
}


def upgrade():
    op.add_column(
        "ci_runners",
        sa.Column("group_ids", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
    )
    for statement in (GROUPS_OF, TRIGGER, FILL):
        op.execute(statement)
    op.create_index(
        "ix_ci_runners_group_ids",
        "ci_runners",
        ["group_ids"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_ci_runners_kept_when_stale",
        "ci_runners",
        ["id"],
        unique=False,
        postgresql_where=sa.text("kept_when_stale"),
    )
    op.create_index(
        "ix_ci_runner_machines_version_runner_id",
        "ci_runner_machines",
        ["version", "runner_id"],
        unique=False,
        postgresql_ops={"version": "text_pattern_ops"},
    )
    order_the_trail_by_time()
    for table, settings in VACUUM.items():
        said = ", ".join(f"{name} = {value}" for name, value in settings.items())
        op.execute(f"ALTER TABLE {table} SET ({said})")
    op.create_index(
        "ix_p_ci_runner_machine_builds_system_xid",
        "p_ci_runner_machine_builds",
        ["system_xid", sa.literal_column("build_id DESC")],
        unique=False,
    )


def order_the_trail_by_time():
    op.drop_index("ix_audit_events_group_ids", table_name="audit_events", postgresql_using="gin")
    for name in TRAIL_BEFORE:
        op.drop_index(f"ix_audit_events_{name}", table_name="audit_events")
    for name, columns in TRAIL.items():
        op.create_index(f"ix_audit_events_{name}", "audit_events", columns, unique=False)
    for level in LEVELS:
        op.create_index(
            f"ix_audit_events_group_{level}",
            "audit_events",
            [sa.literal_column(f"(group_ids[{level}])"), "created_at", "id"],
            unique=False,
            postgresql_where=sa.text(f"group_ids[{level}] IS NOT NULL"),
        )


def order_the_trail_by_number():
    for level in LEVELS:
        op.drop_index(f"ix_audit_events_group_{level}", table_name="audit_events")
    for name in TRAIL:
        op.drop_index(f"ix_audit_events_{name}", table_name="audit_events")
    for name, columns in TRAIL_BEFORE.items():
        op.create_index(f"ix_audit_events_{name}", "audit_events", columns, unique=False)
    op.create_index("ix_audit_events_group_ids", "audit_events", ["group_ids"], unique=False, postgresql_using="gin")


def downgrade():
    op.drop_index("ix_p_ci_runner_machine_builds_system_xid", table_name="p_ci_runner_machine_builds")
    for table, settings in VACUUM.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(settings)})")
    order_the_trail_by_number()
    op.drop_index("ix_ci_runner_machines_version_runner_id", table_name="ci_runner_machines")
    op.drop_index("ix_ci_runners_kept_when_stale", table_name="ci_runners")
    op.drop_index("ix_ci_runners_group_ids", table_name="ci_runners")
    op.execute("DROP TRIGGER ci_runners_group_ids ON ci_runners")
    op.execute("DROP FUNCTION ci_runners_group_ids()")
    op.drop_column("ci_runners", "group_ids")
