"""people sessions trail and deletions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The text of an event that its hash is made of: a JSON array, as PostgreSQL writes it. The domain's audit_chain.py
# writes the same text by itself and does not ask this function.
EVENT_TEXT = """
CREATE FUNCTION audit_event_text(e audit_events) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(
    e.id, to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    e.actor_kind, e.actor_id, e.actor_name, e.action, e.target_kind, e.target_id, e.target_name,
    e.scope_kind, e.scope_path, e.group_ids, e.project_id, e.address, e.request_id, e.changes
  )::text
$$
"""
# Links are made when the transaction commits: the lock that keeps the chain in one line is then the last one that
# the transaction takes, so that it meets no other lock the wrong way round, and positions follow the commits.
CHAIN = """
CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  last audit_links;
BEGIN
  PERFORM pg_advisory_xact_lock(31641693411434500);
  SELECT * INTO last FROM audit_links ORDER BY position DESC LIMIT 1;
  INSERT INTO audit_links (position, event_id, previous_hash, hash)
    SELECT coalesce(last.position, 0) + 1, e.id, coalesce(last.hash, decode(repeat('00', 32), 'hex')),
      sha256(coalesce(last.hash, decode(repeat('00', 32), 'hex')) || convert_to(audit_event_text(e), 'UTF8'))
    FROM audit_events e WHERE e.id = NEW.id;
  RETURN NULL;
END $$
"""
# Retention (portal/domain/trail/audit_retention.py) says in its own transaction that it shortens the trail.
REFUSE = """
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('portal.shortens_trail', true) = 'on' THEN
    RETURN OLD;
  END IF;
  IF TG_OP = 'INSERT' AND pg_trigger_depth() > 1 THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'The trail is append-only: % on % is refused.', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$
"""
TRIGGERS = (
    "CREATE CONSTRAINT TRIGGER audit_chain AFTER INSERT ON audit_events "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_chain()",
    "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_events "
    "FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_append_only BEFORE INSERT OR UPDATE OR DELETE ON audit_links "
    "FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_never_emptied BEFORE TRUNCATE ON audit_events EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_never_emptied BEFORE TRUNCATE ON audit_links EXECUTE FUNCTION audit_refuse()",
)
# What happened before there was a chain is chained as it stands.
CHAIN_WHAT_STANDS = """
DO $$
DECLARE
  event audit_events;
  previous bytea := decode(repeat('00', 32), 'hex');
  next bytea;
  place bigint := 0;
BEGIN
  FOR event IN SELECT * FROM audit_events ORDER BY id LOOP
    place := place + 1;
    next := sha256(previous || convert_to(audit_event_text(event), 'UTF8'));
    INSERT INTO audit_links (position, event_id, previous_hash, hash) VALUES (place, event.id, previous, next);
    previous := next;
  END LOOP;
END $$
"""


def upgrade():
    op.create_table(
        "sign_in_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("account_digest", sa.LargeBinary(), nullable=False),
        sa.Column("network", sa.String(length=64), nullable=False),
        sa.Column("device_digest", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(account_digest) = 32", name=op.f("ck_sign_in_attempts_account_is_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_attempts")),
    )
    op.create_index("ix_sign_in_attempts_account", "sign_in_attempts", ["account_digest", "created_at"], unique=False)
    op.create_index("ix_sign_in_attempts_network", "sign_in_attempts", ["network", "created_at"], unique=False)
    op.create_table(
        "audit_links",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["audit_events.id"], name=op.f("fk_audit_links_event_id_audit_events")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_links")),
        sa.UniqueConstraint("event_id", name=op.f("uq_audit_links_event_id")),
    )
    op.create_table(
        "deletions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("actor_name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("final_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_deletions_user_id_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
    )
    op.create_index(op.f("ix_deletions_created_at"), "deletions", ["created_at"], unique=False)
    op.create_index(op.f("ix_deletions_user_id"), "deletions", ["user_id"], unique=False)
    op.create_table(
        "identities",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("issuer", sa.String(length=1024), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_identities_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_identities_issuer_subject")),
    )
    op.create_index(op.f("ix_identities_user_id"), "identities", ["user_id"], unique=False)
    op.create_table(
        "user_networks",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("network", sa.String(length=64), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_networks_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "network", name=op.f("pk_user_networks")),
    )
    op.create_table(
        "user_recovery_codes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_user_recovery_codes_digest_is_sha256")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_recovery_codes_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_recovery_codes")),
        sa.UniqueConstraint("digest", name=op.f("uq_user_recovery_codes_digest")),
    )
    op.create_index(op.f("ix_user_recovery_codes_user_id"), "user_recovery_codes", ["user_id"], unique=False)
    op.create_table(
        "user_second_factors",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("refused_at", postgresql.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_second_factors_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_second_factors")),
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("second_factor", sa.Boolean(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("user_agent", sa.String(length=512), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_user_sessions_digest_is_sha256")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_sessions_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_user_sessions_digest")),
    )
    op.create_index(op.f("ix_user_sessions_last_used_at"), "user_sessions", ["last_used_at"], unique=False)
    op.create_index(op.f("ix_user_sessions_user_id"), "user_sessions", ["user_id"], unique=False)
    op.create_table(
        "bulk_acts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("runner_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("refused", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("deletion_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deletion_id"], ["deletions.id"], name=op.f("fk_bulk_acts_deletion_id_deletions"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["namespaces.id"], name=op.f("fk_bulk_acts_namespace_id_namespaces"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_bulk_acts_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_bulk_acts_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_acts")),
    )
    op.create_index(op.f("ix_bulk_acts_deletion_id"), "bulk_acts", ["deletion_id"], unique=False)
    op.create_index(op.f("ix_bulk_acts_namespace_id"), "bulk_acts", ["namespace_id"], unique=False)
    op.create_index(op.f("ix_bulk_acts_project_id"), "bulk_acts", ["project_id"], unique=False)
    op.create_index(
        "ix_bulk_acts_unfinished",
        "bulk_acts",
        ["id"],
        unique=False,
        postgresql_where=sa.text("started_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.create_index(op.f("ix_bulk_acts_user_id"), "bulk_acts", ["user_id"], unique=False)
    op.create_table(
        "ci_runner_projects",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("runner_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_ci_runner_projects_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["runner_id"],
            ["ci_runners.id"],
            name=op.f("fk_ci_runner_projects_runner_id_ci_runners"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_runner_projects")),
        sa.UniqueConstraint("runner_id", "project_id", name=op.f("uq_ci_runner_projects_runner_id_project_id")),
    )
    op.create_index(
        "ix_ci_runner_projects_project_id_runner_id", "ci_runner_projects", ["project_id", "runner_id"], unique=False
    )
    op.create_index("ix_audit_events_action", "audit_events", ["action", "id"], unique=False)
    op.create_index("ix_audit_events_actor", "audit_events", ["actor_kind", "actor_id", "id"], unique=False)
    op.create_index("ix_audit_events_created_at", "audit_events", ["created_at"], unique=False)
    op.create_index("ix_audit_events_request_id", "audit_events", ["request_id", "id"], unique=False)
    op.create_index(
        "ix_audit_events_actor_words",
        "audit_events",
        [sa.literal_column("to_tsvector('simple', actor_name)")],
        unique=False,
        postgresql_using="gin",
    )
    op.create_index(
        "ix_audit_events_scope_path",
        "audit_events",
        ["scope_path"],
        unique=False,
        postgresql_ops={"scope_path": "text_pattern_ops"},
    )
    op.add_column("ci_runners", sa.Column("deletion_id", sa.BigInteger(), nullable=True))
    op.add_column("ci_runners", sa.Column("restored_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_ci_runners_deletion_id",
        "ci_runners",
        ["deletion_id"],
        unique=False,
        postgresql_where=sa.text("deletion_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_ci_runners_deletion_id_deletions"), "ci_runners", "deletions", ["deletion_id"], ["id"]
    )
    op.add_column("namespaces", sa.Column("deletion_id", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_namespaces_deletion_id",
        "namespaces",
        ["deletion_id"],
        unique=False,
        postgresql_where=sa.text("deletion_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_namespaces_deletion_id_deletions"), "namespaces", "deletions", ["deletion_id"], ["id"]
    )
    op.add_column("projects", sa.Column("deletion_id", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_projects_deletion_id",
        "projects",
        ["deletion_id"],
        unique=False,
        postgresql_where=sa.text("deletion_id IS NOT NULL"),
    )
    op.create_foreign_key(op.f("fk_projects_deletion_id_deletions"), "projects", "deletions", ["deletion_id"], ["id"])
    op.add_column("members", sa.Column("from_openid", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("users", sa.Column("admin_from_openid", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("users", sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("users", "password_digest", existing_type=sa.VARCHAR(length=255), nullable=True)
    op.drop_column("users", "session_epoch")
    for statement in (EVENT_TEXT, CHAIN, REFUSE, CHAIN_WHAT_STANDS, *TRIGGERS):
        op.execute(statement)


def downgrade():
    # What was deleted and could be restored is gone for good: the release before knows only what is there.
    for table in ("ci_runners", "projects", "namespaces"):
        op.execute(f"DELETE FROM {table} WHERE deletion_id IS NOT NULL")  # noqa: S608  (a name from the line above)
    for table in ("audit_events", "audit_links"):
        op.execute(f"DROP TRIGGER audit_never_emptied ON {table}")
        op.execute(f"DROP TRIGGER audit_append_only ON {table}")
    op.execute("DROP TRIGGER audit_chain ON audit_events")
    op.execute("DROP FUNCTION audit_chain, audit_refuse, audit_event_text")
    op.add_column("users", sa.Column("session_epoch", sa.INTEGER(), server_default=sa.text("0"), nullable=False))
    op.alter_column("users", "session_epoch", server_default=None)
    op.execute("UPDATE users SET password_digest = '' WHERE password_digest IS NULL")
    op.alter_column("users", "password_digest", existing_type=sa.VARCHAR(length=255), nullable=False)
    op.drop_column("users", "blocked_at")
    op.drop_column("users", "admin_from_openid")
    op.drop_column("members", "from_openid")
    op.drop_constraint(op.f("fk_projects_deletion_id_deletions"), "projects", type_="foreignkey")
    op.drop_index(
        "ix_projects_deletion_id", table_name="projects", postgresql_where=sa.text("deletion_id IS NOT NULL")
    )
    op.drop_column("projects", "deletion_id")
    op.drop_constraint(op.f("fk_namespaces_deletion_id_deletions"), "namespaces", type_="foreignkey")
    op.drop_index(
        "ix_namespaces_deletion_id", table_name="namespaces", postgresql_where=sa.text("deletion_id IS NOT NULL")
    )
    op.drop_column("namespaces", "deletion_id")
    op.drop_constraint(op.f("fk_ci_runners_deletion_id_deletions"), "ci_runners", type_="foreignkey")
    op.drop_index(
        "ix_ci_runners_deletion_id", table_name="ci_runners", postgresql_where=sa.text("deletion_id IS NOT NULL")
    )
    op.drop_column("ci_runners", "restored_at")
    op.drop_column("ci_runners", "deletion_id")
    op.drop_index(
        "ix_audit_events_scope_path",
        table_name="audit_events",
        postgresql_ops={"scope_path": "text_pattern_ops"},
    )
    op.drop_index("ix_audit_events_actor_words", table_name="audit_events", postgresql_using="gin")
    op.drop_index("ix_audit_events_request_id", table_name="audit_events")
    op.drop_index("ix_audit_events_created_at", table_name="audit_events")
    op.drop_index("ix_audit_events_actor", table_name="audit_events")
    op.drop_index("ix_audit_events_action", table_name="audit_events")
    op.drop_index("ix_ci_runner_projects_project_id_runner_id", table_name="ci_runner_projects")
    op.drop_table("ci_runner_projects")
    op.drop_index(op.f("ix_bulk_acts_user_id"), table_name="bulk_acts")
    op.drop_index(
        "ix_bulk_acts_unfinished",
        table_name="bulk_acts",
        postgresql_where=sa.text("started_at IS NOT NULL AND finished_at IS NULL"),
    )
    op.drop_index(op.f("ix_bulk_acts_project_id"), table_name="bulk_acts")
    op.drop_index(op.f("ix_bulk_acts_namespace_id"), table_name="bulk_acts")
    op.drop_index(op.f("ix_bulk_acts_deletion_id"), table_name="bulk_acts")
    op.drop_table("bulk_acts")
    op.drop_index(op.f("ix_user_sessions_user_id"), table_name="user_sessions")
    op.drop_index(op.f("ix_user_sessions_last_used_at"), table_name="user_sessions")
    op.drop_table("user_sessions")
    op.drop_table("user_second_factors")
    op.drop_index(op.f("ix_user_recovery_codes_user_id"), table_name="user_recovery_codes")
    op.drop_table("user_recovery_codes")
    op.drop_table("user_networks")
    op.drop_index(op.f("ix_identities_user_id"), table_name="identities")
    op.drop_table("identities")
    op.drop_index(op.f("ix_deletions_user_id"), table_name="deletions")
    op.drop_index(op.f("ix_deletions_created_at"), table_name="deletions")
    op.drop_table("deletions")
    op.drop_table("audit_links")
    op.drop_index("ix_sign_in_attempts_network", table_name="sign_in_attempts")
    op.drop_index("ix_sign_in_attempts_account", table_name="sign_in_attempts")
    op.drop_table("sign_in_attempts")
