"""jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "ci_job_classes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tag_list", postgresql.ARRAY(sa.String(length=255)), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("ref_protected", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_job_classes")),
        sa.UniqueConstraint("digest", "ref_protected", name=op.f("uq_ci_job_classes_digest_ref_protected")),
    )
    op.create_table(
        "ci_partitions",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_partitions")),
        sa.UniqueConstraint("starts_at", name=op.f("uq_ci_partitions_starts_at")),
    )
    op.create_table(
        "p_ci_runner_machine_builds",
        sa.Column("partition_id", sa.BigInteger(), server_default=sa.text("100"), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("runner_machine_id", sa.BigInteger(), nullable=False),
        sa.Column("system_xid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("partition_id", "build_id", name=op.f("pk_p_ci_runner_machine_builds")),
        postgresql_partition_by="LIST (partition_id)",
    )
    op.create_index(
        "ix_p_ci_runner_machine_builds_runner_machine_id",
        "p_ci_runner_machine_builds",
        ["runner_machine_id", sa.literal_column("build_id DESC")],
        unique=False,
    )
    op.create_table(
        "p_ci_job_definitions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_p_ci_job_definitions")),
    )
    op.create_table(
        "ci_job_templates",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("definition_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("creator_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["users.id"], name=op.f("fk_ci_job_templates_creator_id_users"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["p_ci_job_definitions.id"],
            name=op.f("fk_ci_job_templates_definition_id_p_ci_job_definitions"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_ci_job_templates_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_job_templates")),
    )
    op.create_index(op.f("ix_ci_job_templates_creator_id"), "ci_job_templates", ["creator_id"], unique=False)
    op.create_index(op.f("ix_ci_job_templates_definition_id"), "ci_job_templates", ["definition_id"], unique=False)
    op.create_index(
        "uq_ci_job_templates_project_id_lower_name",
        "ci_job_templates",
        ["project_id", sa.literal_column("lower(name)")],
        unique=True,
    )
    op.create_table(
        "ci_builds",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("partition_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("checks_runner_id", sa.BigInteger(), nullable=True),
        sa.Column("system_xid", sa.String(length=64), nullable=True),
        sa.Column("definition_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("ref", sa.String(length=255), nullable=False),
        sa.Column("ref_protected", sa.Boolean(), nullable=False),
        sa.Column("tag_list", postgresql.ARRAY(sa.String(length=255)), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("failure_reason", sa.String(length=64), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("retries_left", sa.SmallInteger(), nullable=False),
        sa.Column("retry_of_id", sa.BigInteger(), nullable=True),
        sa.Column("retried", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("taken_back", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("request_key", sa.Uuid(), nullable=True),
        sa.Column("request_digest", sa.LargeBinary(), nullable=True),
        sa.Column("runner_id", sa.BigInteger(), nullable=True),
        sa.Column("runner_type", sa.SmallInteger(), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("claim_digest", sa.LargeBinary(), nullable=True),
        sa.Column("effective_timeout", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'canceling', 'success', 'failed', 'canceled')",
            name=op.f("ck_ci_builds_known_status"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(project_id, checks_runner_id) = 1", name=op.f("ck_ci_builds_of_a_project_or_a_check")
        ),
        sa.CheckConstraint("timeout > 0", name=op.f("ck_ci_builds_ends_one_day")),
        sa.CheckConstraint(
            "token_digest IS NULL OR octet_length(token_digest) = 32", name=op.f("ck_ci_builds_digest_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["checks_runner_id"],
            ["ci_runners.id"],
            name=op.f("fk_ci_builds_checks_runner_id_ci_runners"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["p_ci_job_definitions.id"],
            name=op.f("fk_ci_builds_definition_id_p_ci_job_definitions"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_ci_builds_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["retry_of_id"], ["ci_builds.id"], name=op.f("fk_ci_builds_retry_of_id_ci_builds"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["runner_id"], ["ci_runners.id"], name=op.f("fk_ci_builds_runner_id_ci_runners"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_ci_builds_user_id_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_builds")),
        sa.UniqueConstraint("claim_digest", name=op.f("uq_ci_builds_claim_digest")),
        sa.UniqueConstraint("request_key", name=op.f("uq_ci_builds_request_key")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_ci_builds_token_digest")),
    )
    op.create_index(
        "ix_ci_builds_checks_runner_id_id",
        "ci_builds",
        ["checks_runner_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(op.f("ix_ci_builds_definition_id"), "ci_builds", ["definition_id"], unique=False)
    op.create_index(
        "ix_ci_builds_finished_at",
        "ci_builds",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_ci_builds_project_id_id", "ci_builds", ["project_id", sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "ix_ci_builds_project_id_status_id",
        "ci_builds",
        ["project_id", "status", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_ci_builds_served",
        "ci_builds",
        ["project_id", sa.literal_column("started_at DESC")],
        unique=False,
        postgresql_where=sa.text("runner_type = 1"),
    )
    op.create_index(op.f("ix_ci_builds_retry_of_id"), "ci_builds", ["retry_of_id"], unique=False)
    op.create_index(
        "ix_ci_builds_runner_id_id", "ci_builds", ["runner_id", sa.literal_column("id DESC")], unique=False
    )
    op.create_index(
        "ix_ci_builds_runner_id_status_id",
        "ci_builds",
        ["runner_id", "status", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_ci_builds_running",
        "ci_builds",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('running', 'canceling')"),
    )
    op.create_index(op.f("ix_ci_builds_user_id"), "ci_builds", ["user_id"], unique=False)
    op.create_table(
        "ci_job_artifacts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("file_type", sa.String(length=32), nullable=False),
        sa.Column("file_format", sa.String(length=16), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["ci_builds.id"], name=op.f("fk_ci_job_artifacts_job_id_ci_builds"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ci_job_artifacts")),
        sa.UniqueConstraint("job_id", "file_type", name=op.f("uq_ci_job_artifacts_job_id_file_type")),
        sa.UniqueConstraint("key", name=op.f("uq_ci_job_artifacts_key")),
    )
    op.create_index(
        "ix_ci_job_artifacts_expires_at",
        "ci_job_artifacts",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_ci_job_artifacts_left_over",
        "ci_job_artifacts",
        ["id"],
        unique=False,
        postgresql_where=sa.text("job_id IS NULL"),
    )
    op.create_table(
        "ci_job_dependencies",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("needs_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["ci_builds.id"], name=op.f("fk_ci_job_dependencies_job_id_ci_builds"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["needs_id"], ["ci_builds.id"], name=op.f("fk_ci_job_dependencies_needs_id_ci_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "needs_id", name=op.f("pk_ci_job_dependencies")),
    )
    op.create_index(op.f("ix_ci_job_dependencies_needs_id"), "ci_job_dependencies", ["needs_id"], unique=False)
    op.create_table(
        "ci_job_logs",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lines", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("crc32", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("watched_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["ci_builds.id"], name=op.f("fk_ci_job_logs_job_id_ci_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_ci_job_logs")),
    )
    op.create_table(
        "ci_pending_builds",
        sa.Column("scope_kind", sa.SmallInteger(), nullable=False),
        sa.Column("scope_id", sa.BigInteger(), nullable=False),
        sa.Column("class_id", sa.BigInteger(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["ci_job_classes.id"], name=op.f("fk_ci_pending_builds_class_id_ci_job_classes")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["ci_builds.id"], name=op.f("fk_ci_pending_builds_job_id_ci_builds"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "scope_kind", "scope_id", "class_id", "turn", "job_id", name=op.f("pk_ci_pending_builds")
        ),
    )
    op.create_index("ix_ci_pending_builds_job_id", "ci_pending_builds", ["job_id"], unique=False)
    op.create_table(
        "ci_job_log_pieces",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lines_before", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["ci_job_logs.job_id"],
            name=op.f("fk_ci_job_log_pieces_job_id_ci_job_logs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "start", name=op.f("pk_ci_job_log_pieces")),
    )
    op.create_index(
        "ix_ci_job_log_pieces_lines",
        "ci_job_log_pieces",
        ["job_id", "attempt", "lines_before", "start"],
        unique=False,
    )
    op.add_column(
        "project_ci_cd_settings",
        sa.Column("shared_runners_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.add_column(
        "project_ci_cd_settings",
        sa.Column("group_runners_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.add_column(
        "project_ci_cd_settings",
        sa.Column("build_timeout", sa.Integer(), server_default=sa.text("3600"), nullable=False),
    )
    op.add_column(
        "project_ci_cd_settings",
        sa.Column(
            "protected_refs", postgresql.ARRAY(sa.String(length=255)), server_default=sa.text("'{}'"), nullable=False
        ),
    )
    op.execute("CREATE SEQUENCE ci_queue_marks")
    # Jobs of the first days belong to the seeds' partition; further ones are made ahead as time goes by.
    op.execute("INSERT INTO ci_partitions (id, starts_at) VALUES (100, '2020-01-01 00:00:00+00')")
    op.execute(
        "CREATE TABLE p_ci_runner_machine_builds_100 PARTITION OF p_ci_runner_machine_builds FOR VALUES IN (100)"
    )
    # The class of jobs without tags on an unprotected ref, to which every check of a runner belongs too.
    op.execute(
        "INSERT INTO ci_job_classes (tag_list, digest, ref_protected, created_at) "
        "VALUES ('{}', sha256(''), false, now())"
    )


def downgrade():
    op.execute("DROP SEQUENCE ci_queue_marks")
    op.drop_column("project_ci_cd_settings", "protected_refs")
    op.drop_column("project_ci_cd_settings", "build_timeout")
    op.drop_column("project_ci_cd_settings", "group_runners_enabled")
    op.drop_column("project_ci_cd_settings", "shared_runners_enabled")
    op.drop_table("ci_job_log_pieces")
    op.drop_table("ci_pending_builds")
    op.drop_table("ci_job_logs")
    op.drop_table("ci_job_dependencies")
    op.drop_table("ci_job_artifacts")
    op.drop_table("ci_builds")
    op.drop_table("ci_job_templates")
    op.drop_table("p_ci_job_definitions")
    op.drop_table("p_ci_runner_machine_builds")
    op.drop_table("ci_partitions")
    op.drop_table("ci_job_classes")
