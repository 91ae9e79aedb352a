"""speed: what lists are found by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Each runner tells the groups above it, so that a list of a group needs no look at the thousands below it. Groups and
# projects never move to another group; a runner may get another owner. Before an update nothing may stand: PostgreSQL
# would lock the row and make its words anew with every heartbeat, whichever columns the trigger is for.
GROUPS_OF = """
CREATE FUNCTION ci_runners_groups_of(owner bigint, project bigint) RETURNS bigint[] LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    (SELECT n.traversal_ids FROM namespaces n WHERE n.id = owner),
    (SELECT n.traversal_ids FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE p.id = project),
    '{}')
$$
"""
FIRST = """
CREATE FUNCTION ci_runners_group_ids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.group_ids := ci_runners_groups_of(NEW.namespace_id, NEW.project_id);
  RETURN NEW;
END $$
"""
ANEW = """
CREATE FUNCTION ci_runners_group_ids_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE ci_runners r SET group_ids = ci_runners_groups_of(r.namespace_id, r.project_id)
  WHERE r.id = NEW.id AND r.group_ids <> ci_runners_groups_of(r.namespace_id, r.project_id);
  RETURN NULL;
END $$
"""
TRIGGERS = (
    "CREATE TRIGGER ci_runners_group_ids BEFORE INSERT ON ci_runners FOR EACH ROW "
    "EXECUTE FUNCTION ci_runners_group_ids()",
    "CREATE TRIGGER ci_runners_group_ids_anew AFTER UPDATE OF namespace_id, project_id, group_ids ON ci_runners "
    "FOR EACH ROW WHEN ((OLD.namespace_id, OLD.project_id, OLD.group_ids) "
    "IS DISTINCT FROM (NEW.namespace_id, NEW.project_id, NEW.group_ids)) "
    "EXECUTE FUNCTION ci_runners_group_ids_anew()",
)
FILL = "UPDATE ci_runners SET group_ids = ci_runners_groups_of(namespace_id, project_id) WHERE runner_type <> 1"

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
    # Each step is committed by itself: nobody waits for longer than one, and the runners, which nobody can read while
    # theirs lasts, are not held through those of the trail. In one transaction somebody who changes a runner would
    # wait for the trail, and the upgrade for them. What an interrupted upgrade has done is not done again.
    for step, makes in STEPS:
        if not op.get_bind().scalar(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": makes}):
            step()
        with op.get_context().autocommit_block():
            pass
    drop_what_the_trail_had()


def index_machines():
    op.create_index(
        "ix_ci_runner_machines_version_runner_id",
        "ci_runner_machines",
        ["version", "runner_id"],
        unique=False,
        postgresql_ops={"version": "text_pattern_ops"},
    )


def index_machines_of_jobs():
    for table, settings in VACUUM.items():
        said = ", ".join(f"{name} = {value}" for name, value in settings.items())
        op.execute(f"ALTER TABLE {table} SET ({said})")
    op.create_index(
        "ix_p_ci_runner_machine_builds_system_xid",
        "p_ci_runner_machine_builds",
        ["system_xid", sa.literal_column("build_id DESC")],
        unique=False,
    )


def let_runners_name_their_groups():
    op.add_column(
        "ci_runners",
        sa.Column("group_ids", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
    )
    for statement in (GROUPS_OF, FIRST, ANEW, FILL, *TRIGGERS):
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


def order_the_trail_by_time():
    """Those that there were are found by until these are there, and so the trail can be read meanwhile."""
    for name in ("group_ids", *TRAIL_BEFORE):
        op.execute(f"ALTER INDEX ix_audit_events_{name} RENAME TO ix_audit_events_{name}_before")
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


def drop_what_the_trail_had():
    for name in ("group_ids", *TRAIL_BEFORE):
        op.execute(f"DROP INDEX IF EXISTS ix_audit_events_{name}_before")


# In their order, each with an index that tells that it was done.
STEPS = (
    (order_the_trail_by_time, "ix_audit_events_created_at_id"),
    (index_machines_of_jobs, "ix_p_ci_runner_machine_builds_system_xid"),
    (index_machines, "ix_ci_runner_machines_version_runner_id"),
    (let_runners_name_their_groups, "ix_ci_runners_kept_when_stale"),
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
    for name in ("ci_runners_group_ids_anew", "ci_runners_group_ids"):
        op.execute(f"DROP TRIGGER {name} ON ci_runners")
        op.execute(f"DROP FUNCTION {name}()")
    op.execute("DROP FUNCTION ci_runners_groups_of(bigint, bigint)")
    op.drop_column("ci_runners", "group_ids")
