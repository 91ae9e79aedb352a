"""people groups and runners."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.String(length=32), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=True),
        sa.Column("actor_name", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.BigInteger(), nullable=True),
        sa.Column("target_name", sa.String(length=1024), nullable=False),
        sa.Column("scope_kind", sa.String(length=16), nullable=False),
        sa.Column("scope_path", sa.String(length=4096), nullable=False),
        sa.Column("group_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_group_ids", "audit_events", ["group_ids"], unique=False, postgresql_using="gin")
    op.create_index("ix_audit_events_project_id", "audit_events", ["project_id", "id"], unique=False)
    op.create_index("ix_audit_events_target", "audit_events", ["target_kind", "target_id", "id"], unique=False)
    op.create_table(
        "namespaces",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("traversal_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["namespaces.id"],
            name=op.f("fk_namespaces_parent_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespaces")),
    )
    op.create_index(op.f("ix_namespaces_parent_id"), "namespaces", ["parent_id"], unique=False)
    op.create_index(
        "ix_namespaces_traversal_ids", "namespaces", ["traversal_ids"], unique=False, postgresql_using="gin"
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("password_digest", sa.String(length=255), nullable=False),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("session_epoch", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_signed_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("uq_users_email_lower", "users", [sa.literal_column("lower(email)")], unique=True)
    op.create_index("uq_users_username_lower", "users", [sa.literal_column("lower(username)")], unique=True)
    op.create_table(
        "projects",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_projects_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_index(op.f("ix_projects_namespace_id"), "projects", ["namespace_id"], unique=False)
    op.create_table(
        "ci_runners",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("runner_type", sa.SmallInteger(), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("creator_id", sa.BigInteger(), nullable=True),
        sa.Column("registration_type", sa.SmallInteger(), nullable=False),
        sa.Column("creation_state", sa.SmallInteger(), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("maintenance_note", sa.String(length=1024), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("run_untagged", sa.Boolean(), nullable=False),
        sa.Column("access_level", sa.SmallInteger(), nullable=False),
        sa.Column("maximum_timeout", sa.Integer(), nullable=True),
        sa.Column("tag_list", postgresql.ARRAY(sa.String(length=255)), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("contacted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.String(length=2048), nullable=True),
        sa.Column("revision", sa.String(length=255), nullable=True),
        sa.Column("platform", sa.String(length=255), nullable=True),
        sa.Column("architecture", sa.String(length=255), nullable=True),
        sa.Column("ip_address", sa.String(length=1024), nullable=True),
        sa.Column("executor_type", sa.SmallInteger(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "words",
            postgresql.TSVECTOR(),
            sa.Computed(
                "to_tsvector('simple', regexp_replace(description, '[^[:alnum:]]+', ' ', 'g'))", persisted=True
            ),
            nullable=True,
        ),
        sa.CheckConstraint(
            "(runner_type = 2) = (namespace_id IS NOT NULL) AND (runner_type = 3) = (project_id IS NOT NULL)",
            name=op.f("ck_ci_runners_owner_fits_type"),
        ),
        sa.CheckConstraint(
            "maximum_timeout IS NULL OR maximum_timeout >= 600",
            name=op.f("ck_ci_runners_timeout_at_least_600"),
        ),
        sa.CheckConstraint("run_untagged OR cardinality(tag_list) > 0", name=op.f("ck_ci_runners_tags_or_untagged")),
        sa.CheckConstraint("runner_type IN (1, 2, 3)", name=op.f("ck_ci_runners_known_type")),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["users.id"], name=op.f("fk_ci_runners_creator_id_users"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_ci_runners_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_ci_runners_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_runners")),
    )
    op.create_index("ix_ci_runners_created_at_id", "ci_runners", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_ci_runners_creator_id"), "ci_runners", ["creator_id"], unique=False)
    op.create_index(
        "ix_ci_runners_last_contact",
        "ci_runners",
        [
            sa.literal_column("coalesce(contacted_at, '-infinity'::timestamptz) DESC"),
            sa.literal_column("id DESC"),
        ],
        unique=False,
    )
    op.create_index(
        "ix_ci_runners_namespace_id_id",
        "ci_runners",
        ["namespace_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_ci_runners_project_id_id",
        "ci_runners",
        ["project_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_ci_runners_runner_type_id",
        "ci_runners",
        ["runner_type", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_ci_runners_tag_list", "ci_runners", ["tag_list"], unique=False, postgresql_using="gin")
    op.create_index("ix_ci_runners_words", "ci_runners", ["words"], unique=False, postgresql_using="gin")
    op.create_table(
        "members",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("access_level", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("access_level IN (10, 20, 30, 40, 50)", name=op.f("ck_members_known_role")),
        sa.CheckConstraint("num_nonnulls(namespace_id, project_id) = 1", name=op.f("ck_members_one_scope")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_members_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_members_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_members_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("namespace_id", "user_id", name=op.f("uq_members_namespace_id_user_id")),
        sa.UniqueConstraint("project_id", "user_id", name=op.f("uq_members_project_id_user_id")),
    )
    op.create_index(op.f("ix_members_user_id"), "members", ["user_id"], unique=False)
    op.create_table(
        "routes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("num_nonnulls(namespace_id, project_id) = 1", name=op.f("ck_routes_one_owner")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_routes_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_routes_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
        sa.UniqueConstraint("namespace_id", name=op.f("uq_routes_namespace_id")),
        sa.UniqueConstraint("project_id", name=op.f("uq_routes_project_id")),
    )
    op.create_index(
        "ix_routes_path_pattern",
        "routes",
        [sa.literal_column("lower(path)").label("lower_path")],
        unique=False,
        postgresql_ops={"lower_path": "text_pattern_ops"},
    )
    op.create_index("uq_routes_path_lower", "routes", [sa.literal_column("lower(path)")], unique=True)
    op.create_table(
        "ci_runner_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("runner_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("short", sa.String(length=9), nullable=False),
        sa.Column("origin", sa.SmallInteger(), nullable=False),
        sa.Column("minted_from_id", sa.BigInteger(), nullable=True),
        sa.Column("request_key", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_ci_runner_tokens_digest_is_sha256")),
        sa.ForeignKeyConstraint(
            ["minted_from_id"],
            ["ci_runner_tokens.id"],
            name=op.f("fk_ci_runner_tokens_minted_from_id_ci_runner_tokens"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["runner_id"],
            ["ci_runners.id"],
            name=op.f("fk_ci_runner_tokens_runner_id_ci_runners"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_runner_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_ci_runner_tokens_digest")),
        sa.UniqueConstraint("request_key", name=op.f("uq_ci_runner_tokens_request_key")),
    )
    op.create_index(op.f("ix_ci_runner_tokens_minted_from_id"), "ci_runner_tokens", ["minted_from_id"], unique=False)
    op.create_index(op.f("ix_ci_runner_tokens_runner_id"), "ci_runner_tokens", ["runner_id"], unique=False)
    op.create_index(
        "ix_ci_runner_tokens_short",
        "ci_runner_tokens",
        ["short"],
        unique=False,
        postgresql_ops={"short": "text_pattern_ops"},
    )
    op.create_table(
        "ci_runner_machines",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("runner_id", sa.BigInteger(), nullable=False),
        sa.Column("system_xid", sa.String(length=64), nullable=False),
        sa.Column("creation_state", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("contacted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_id", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.String(length=2048), nullable=True),
        sa.Column("revision", sa.String(length=255), nullable=True),
        sa.Column("platform", sa.String(length=255), nullable=True),
        sa.Column("architecture", sa.String(length=255), nullable=True),
        sa.Column("ip_address", sa.String(length=1024), nullable=True),
        sa.Column("executor_type", sa.SmallInteger(), nullable=True),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "runtime_features",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "labels",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["runner_id"],
            ["ci_runners.id"],
            name=op.f("fk_ci_runner_machines_runner_id_ci_runners"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["ci_runner_tokens.id"],
            name=op.f("fk_ci_runner_machines_token_id_ci_runner_tokens"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_runner_machines")),
        sa.UniqueConstraint("runner_id", "system_xid", name=op.f("uq_ci_runner_machines_runner_id_system_xid")),
    )
    op.create_index("ix_ci_runner_machines_contacted_at", "ci_runner_machines", ["contacted_at"], unique=False)
    op.create_index(
        "ix_ci_runner_machines_ip_address",
        "ci_runner_machines",
        ["ip_address"],
        unique=False,
        postgresql_ops={"ip_address": "text_pattern_ops"},
    )
    op.create_index(
        "ix_ci_runner_machines_runner_id_contacted_at",
        "ci_runner_machines",
        ["runner_id", sa.literal_column("contacted_at DESC NULLS LAST")],
        unique=False,
    )
    op.create_index(
        "ix_ci_runner_machines_system_xid",
        "ci_runner_machines",
        ["system_xid"],
        unique=False,
        postgresql_ops={"system_xid": "text_pattern_ops"},
    )
    op.create_index(op.f("ix_ci_runner_machines_token_id"), "ci_runner_machines", ["token_id"], unique=False)


def downgrade():
    op.drop_index(op.f("ix_ci_runner_machines_token_id"), table_name="ci_runner_machines")
    op.drop_index(
        "ix_ci_runner_machines_system_xid",
        table_name="ci_runner_machines",
        postgresql_ops={"system_xid": "text_pattern_ops"},
    )
    op.drop_index("ix_ci_runner_machines_runner_id_contacted_at", table_name="ci_runner_machines")
    op.drop_index(
        "ix_ci_runner_machines_ip_address",
        table_name="ci_runner_machines",
        postgresql_ops={"ip_address": "text_pattern_ops"},
    )
    op.drop_index("ix_ci_runner_machines_contacted_at", table_name="ci_runner_machines")
    op.drop_table("ci_runner_machines")
    op.drop_index(
        "ix_ci_runner_tokens_short",
        table_name="ci_runner_tokens",
        postgresql_ops={"short": "text_pattern_ops"},
    )
    op.drop_index(op.f("ix_ci_runner_tokens_runner_id"), table_name="ci_runner_tokens")
    op.drop_index(op.f("ix_ci_runner_tokens_minted_from_id"), table_name="ci_runner_tokens")
    op.drop_table("ci_runner_tokens")
    op.drop_index("uq_routes_path_lower", table_name="routes")
    op.drop_index("ix_routes_path_pattern", table_name="routes", postgresql_ops={"lower_path": "text_pattern_ops"})
    op.drop_table("routes")
    op.drop_index(op.f("ix_members_user_id"), table_name="members")
    op.drop_table("members")
    op.drop_index("ix_ci_runners_words", table_name="ci_runners", postgresql_using="gin")
    op.drop_index("ix_ci_runners_tag_list", table_name="ci_runners", postgresql_using="gin")
    op.drop_index("ix_ci_runners_runner_type_id", table_name="ci_runners")
    op.drop_index("ix_ci_runners_project_id_id", table_name="ci_runners")
    op.drop_index("ix_ci_runners_namespace_id_id", table_name="ci_runners")
    op.drop_index("ix_ci_runners_last_contact", table_name="ci_runners")
    op.drop_index(op.f("ix_ci_runners_creator_id"), table_name="ci_runners")
    op.drop_index("ix_ci_runners_created_at_id", table_name="ci_runners")
    op.drop_table("ci_runners")
    op.drop_index(op.f("ix_projects_namespace_id"), table_name="projects")
    op.drop_table("projects")
    op.drop_index("uq_users_username_lower", table_name="users")
    op.drop_index("uq_users_email_lower", table_name="users")
    op.drop_table("users")
    op.drop_index("ix_namespaces_traversal_ids", table_name="namespaces", postgresql_using="gin")
    op.drop_index(op.f("ix_namespaces_parent_id"), table_name="namespaces")
    op.drop_table("namespaces")
    op.drop_index("ix_audit_events_target", table_name="audit_events")
    op.drop_index("ix_audit_events_project_id", table_name="audit_events")
    op.drop_index("ix_audit_events_group_ids", table_name="audit_events", postgresql_using="gin")
    op.drop_table("audit_events")
