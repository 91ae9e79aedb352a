"""registration tokens."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "application_settings",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "valid_runner_registrars",
            postgresql.ARRAY(sa.String(length=16)),
            server_default=sa.text("'{group,project}'"),
            nullable=False,
        ),
        sa.Column("group_runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("project_runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("ci_registered_group_runners", sa.Integer(), server_default=sa.text("1000"), nullable=False),
        sa.Column("ci_registered_project_runners", sa.Integer(), server_default=sa.text("1000"), nullable=False),
        sa.Column("allow_runner_registration_token", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("switched_by_id", sa.BigInteger(), nullable=True),
        sa.Column("stale_runner_cleanup_days", sa.Integer(), nullable=True),
        sa.Column("stale_runner_cleanup_legacy_only", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("stale_runner_cleanup_ran_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_application_settings_one_row")),
        sa.CheckConstraint(
            "least(runner_token_expiration_interval, group_runner_token_expiration_interval, "
            "project_runner_token_expiration_interval) >= 7200",
            name=op.f("ck_application_settings_tokens_live_long_enough"),
        ),
        sa.CheckConstraint("stale_runner_cleanup_days >= 7", name=op.f("ck_application_settings_stale_for_a_week")),
        sa.ForeignKeyConstraint(
            ["switched_by_id"],
            ["users.id"],
            name=op.f("fk_application_settings_switched_by_id_users"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_application_settings")),
    )
    op.create_index(
        op.f("ix_application_settings_switched_by_id"), "application_settings", ["switched_by_id"], unique=False
    )
    op.create_table(
        "namespace_settings",
        sa.Column("namespace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("runner_registration_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("subgroup_runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("project_runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("ci_registered_group_runners", sa.Integer(), nullable=True),
        sa.Column("ci_registered_project_runners", sa.Integer(), nullable=True),
        sa.Column("allow_runner_registration_token", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("switched_by_id", sa.BigInteger(), nullable=True),
        sa.Column("stale_runner_cleanup_days", sa.Integer(), nullable=True),
        sa.Column("stale_runner_cleanup_legacy_only", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("stale_runner_cleanup_ran_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "least(runner_token_expiration_interval, subgroup_runner_token_expiration_interval, "
            "project_runner_token_expiration_interval) >= 7200",
            name=op.f("ck_namespace_settings_tokens_live_long_enough"),
        ),
        sa.CheckConstraint("stale_runner_cleanup_days >= 7", name=op.f("ck_namespace_settings_stale_for_a_week")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_namespace_settings_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["switched_by_id"],
            ["users.id"],
            name=op.f("fk_namespace_settings_switched_by_id_users"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("namespace_id", name=op.f("pk_namespace_settings")),
    )
    op.create_index(
        op.f("ix_namespace_settings_switched_by_id"), "namespace_settings", ["switched_by_id"], unique=False
    )
    op.create_table(
        "ci_registration_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=True),
        sa.Column("short", sa.String(length=9), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (ciphertext IS NOT NULL)",
            name=op.f("ck_ci_registration_tokens_kept_while_it_works"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(namespace_id, project_id) <= 1", name=op.f("ck_ci_registration_tokens_one_scope")
        ),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_ci_registration_tokens_digest_is_sha256")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_ci_registration_tokens_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_ci_registration_tokens_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_registration_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_ci_registration_tokens_digest")),
    )
    op.create_index(
        "ix_ci_registration_tokens_namespace_id", "ci_registration_tokens", ["namespace_id"], unique=False
    )
    op.create_index("ix_ci_registration_tokens_project_id", "ci_registration_tokens", ["project_id"], unique=False)
    op.create_index(
        "uq_ci_registration_tokens_live_scope",
        "ci_registration_tokens",
        [sa.literal_column("coalesce(namespace_id, 0)"), sa.literal_column("coalesce(project_id, 0)")],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "project_ci_cd_settings",
        sa.Column("project_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("allow_runner_registration_token", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runner_token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("switched_by_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "least(runner_token_expiration_interval) >= 7200",
            name=op.f("ck_project_ci_cd_settings_tokens_live_long_enough"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_project_ci_cd_settings_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["switched_by_id"],
            ["users.id"],
            name=op.f("fk_project_ci_cd_settings_switched_by_id_users"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_project_ci_cd_settings")),
    )
    op.create_index(
        op.f("ix_project_ci_cd_settings_switched_by_id"), "project_ci_cd_settings", ["switched_by_id"], unique=False
    )
    op.create_index(
        "ix_audit_events_registrations",
        "audit_events",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("action = 'runner_registered'"),
    )
    op.create_index(
        "ix_ci_runner_tokens_expires_at",
        "ci_runner_tokens",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.add_column("ci_runner_tokens", sa.Column("cut", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # Until now a token that a person ended looked like one that ended by itself: nothing brings back either.
    op.execute("UPDATE ci_runner_tokens SET cut = true WHERE ends_at <= now()")
    op.create_index("ix_ci_runner_tokens_runner_id_id", "ci_runner_tokens", ["runner_id", "id"], unique=False)
    op.drop_index(op.f("ix_ci_runner_tokens_runner_id"), table_name="ci_runner_tokens")
    op.create_index(
        "ix_ci_runner_tokens_shown",
        "ci_runner_tokens",
        ["runner_id", "id"],
        unique=False,
        postgresql_where=sa.text("origin <> 2"),
    )
    op.create_index(
        "ix_ci_runner_tokens_over",
        "ci_runner_tokens",
        [sa.literal_column("least(expires_at, ends_at)")],
        unique=False,
    )
    op.add_column("ci_runners", sa.Column("token_expiration_interval", sa.Integer(), nullable=True))
    op.add_column("ci_runners", sa.Column("machines_forgotten_after", sa.Integer(), nullable=True))
    op.add_column(
        "ci_runners", sa.Column("machines_forgotten", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("ci_runners", sa.Column("machines_forgotten_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "ci_runners", sa.Column("kept_when_stale", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("ci_runners", sa.Column("registered_with_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_ci_runners_registered_with_id"), "ci_runners", ["registered_with_id"], unique=False)
    op.create_foreign_key(
        op.f("fk_ci_runners_registered_with_id_ci_registration_tokens"),
        "ci_runners",
        "ci_registration_tokens",
        ["registered_with_id"],
        ["id"],
        ondelete="SET NULL",
    )

    op.create_index(
        "ix_ci_runners_own_memory",
        "ci_runners",
        ["id"],
        unique=False,
        postgresql_where=sa.text("machines_forgotten_after IS NOT NULL"),
    )
    op.create_check_constraint(
        op.f("ck_ci_runners_token_lives_an_hour"), "ci_runners", "token_expiration_interval >= 3600"
    )
    op.create_check_constraint(
        op.f("ck_ci_runners_machines_kept_an_hour"), "ci_runners", "machines_forgotten_after >= 3600"
    )


def downgrade():
    op.drop_index(
        "ix_ci_runners_own_memory",
        table_name="ci_runners",
        postgresql_where=sa.text("machines_forgotten_after IS NOT NULL"),
    )
    op.drop_constraint(
        op.f("fk_ci_runners_registered_with_id_ci_registration_tokens"), "ci_runners", type_="foreignkey"
    )
    op.drop_index(op.f("ix_ci_runners_registered_with_id"), table_name="ci_runners")
    op.drop_column("ci_runners", "registered_with_id")
    op.drop_column("ci_runners", "kept_when_stale")
    op.drop_column("ci_runners", "machines_forgotten_at")
    op.drop_column("ci_runners", "machines_forgotten")
    op.drop_column("ci_runners", "machines_forgotten_after")
    op.drop_column("ci_runners", "token_expiration_interval")
    op.drop_index("ix_ci_runner_tokens_over", table_name="ci_runner_tokens")
    op.drop_index("ix_ci_runner_tokens_shown", table_name="ci_runner_tokens", postgresql_where=sa.text("origin <> 2"))
    op.create_index(op.f("ix_ci_runner_tokens_runner_id"), "ci_runner_tokens", ["runner_id"], unique=False)
    op.drop_index("ix_ci_runner_tokens_runner_id_id", table_name="ci_runner_tokens")
    op.drop_column("ci_runner_tokens", "cut")
    op.drop_index(
        "ix_ci_runner_tokens_expires_at",
        table_name="ci_runner_tokens",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_audit_events_registrations",
        table_name="audit_events",
        postgresql_where=sa.text("action = 'runner_registered'"),
    )
    op.drop_index(op.f("ix_project_ci_cd_settings_switched_by_id"), table_name="project_ci_cd_settings")
    op.drop_table("project_ci_cd_settings")
    op.drop_index(
        "uq_ci_registration_tokens_live_scope",
        table_name="ci_registration_tokens",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index("ix_ci_registration_tokens_project_id", table_name="ci_registration_tokens")
    op.drop_index("ix_ci_registration_tokens_namespace_id", table_name="ci_registration_tokens")
    op.drop_table("ci_registration_tokens")
    op.drop_index(op.f("ix_namespace_settings_switched_by_id"), table_name="namespace_settings")
    op.drop_table("namespace_settings")
    op.drop_index(op.f("ix_application_settings_switched_by_id"), table_name="application_settings")
    op.drop_table("application_settings")
