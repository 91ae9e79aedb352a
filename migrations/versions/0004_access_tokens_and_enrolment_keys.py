"""access tokens and enrolment keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "personal_access_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=1024), server_default=sa.text("''"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("short", sa.String(length=4), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.String(length=32)), nullable=False),
        sa.Column("request_key", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.Date(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_address", sa.String(length=64), server_default=sa.text("''"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_personal_access_tokens_digest_is_sha256")),
        sa.CheckConstraint("cardinality(scopes) > 0", name=op.f("ck_personal_access_tokens_opens_something")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_personal_access_tokens_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_personal_access_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_personal_access_tokens_digest")),
        sa.UniqueConstraint("request_key", name=op.f("uq_personal_access_tokens_request_key")),
    )
    op.create_index(op.f("ix_personal_access_tokens_user_id"), "personal_access_tokens", ["user_id"], unique=False)
    op.create_table(
        "enrolment_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("creator_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("short", sa.String(length=4), nullable=False),
        sa.Column("request_key", sa.Uuid(), nullable=True),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("maintenance_note", sa.String(length=1024), nullable=False),
        sa.Column("tag_list", postgresql.ARRAY(sa.String(length=255)), nullable=False),
        sa.Column("run_untagged", sa.Boolean(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("access_level", sa.SmallInteger(), nullable=False),
        sa.Column("maximum_timeout", sa.Integer(), nullable=True),
        sa.Column("token_expiration_interval", sa.Integer(), nullable=True),
        sa.Column("most_runners", sa.Integer(), nullable=False),
        sa.Column("runners_created", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("networks", postgresql.ARRAY(sa.String(length=64)), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.Date(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_address", sa.String(length=64), server_default=sa.text("''"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_enrolment_keys_digest_is_sha256")),
        sa.CheckConstraint("num_nonnulls(namespace_id, project_id) <= 1", name=op.f("ck_enrolment_keys_one_scope")),
        sa.CheckConstraint(
            "runners_created BETWEEN 0 AND most_runners", name=op.f("ck_enrolment_keys_no_more_than_allowed")
        ),
        sa.CheckConstraint("most_runners > 0", name=op.f("ck_enrolment_keys_makes_something")),
        sa.CheckConstraint(
            "run_untagged OR cardinality(tag_list) > 0", name=op.f("ck_enrolment_keys_tags_or_untagged")
        ),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_enrolment_keys_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_enrolment_keys_project_id_projects"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["users.id"], name=op.f("fk_enrolment_keys_creator_id_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_enrolment_keys_digest")),
        sa.UniqueConstraint("request_key", name=op.f("uq_enrolment_keys_request_key")),
    )
    for column in ("namespace_id", "project_id", "creator_id"):
        op.create_index(op.f(f"ix_enrolment_keys_{column}"), "enrolment_keys", [column], unique=False)
    op.add_column("ci_runners", sa.Column("enrolled_with_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_ci_runners_enrolled_with_id"), "ci_runners", ["enrolled_with_id"], unique=False)
    op.create_foreign_key(
        op.f("fk_ci_runners_enrolled_with_id_enrolment_keys"),
        "ci_runners",
        "enrolment_keys",
        ["enrolled_with_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.add_column("ci_runner_tokens", sa.Column("request_digest", sa.LargeBinary(), nullable=True))


def downgrade():
    op.drop_column("ci_runner_tokens", "request_digest")
    op.drop_constraint(op.f("fk_ci_runners_enrolled_with_id_enrolment_keys"), "ci_runners", type_="foreignkey")
    op.drop_index(op.f("ix_ci_runners_enrolled_with_id"), table_name="ci_runners")
    op.drop_column("ci_runners", "enrolled_with_id")
    op.drop_table("enrolment_keys")
    op.drop_table("personal_access_tokens")
