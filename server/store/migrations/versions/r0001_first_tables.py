"""Tenants, API keys, key bundles, jobs, runners and model states.

Revision: 0001
Follows: None
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the changes."""
    op.create_table(
        "model_states",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("unloaded", sa.Boolean(), nullable=False),
        sa.Column("loaded", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model_states")),
    )
    op.create_table(
        "runners",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runners")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("queries_per_day", sa.BigInteger(), nullable=True),
        sa.Column("key_bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=8), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("idempotency_key", sa.String(length=64), nullable=True),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("deadline", sa.Double(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("has_result", sa.Boolean(), nullable=False),
        sa.Column("runner_id", sa.String(length=32), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("layer", sa.String(length=128), nullable=True),
        sa.Column("bootstraps_done", sa.BigInteger(), nullable=False),
        sa.Column("bootstraps_total", sa.BigInteger(), nullable=False),
        sa.Column("images_done", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.String(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("key_seconds", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_jobs_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_jobs_tenant_id_idempotency_key")),
    )
    op.create_index(op.f("ix_jobs_runner_id"), "jobs", ["runner_id"], unique=False)
    op.create_index(op.f("ix_jobs_state_created"), "jobs", ["state", "created"], unique=False)
    op.create_index(op.f("ix_jobs_tenant_id_created"), "jobs", ["tenant_id", "created"], unique=False)
    op.create_index(op.f("ix_jobs_tenant_id_started"), "jobs", ["tenant_id", "started"], unique=False)

    op.create_table(
        "key_bundles",
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("params_id", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_key_bundles_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name=op.f("pk_key_bundles")),
    )
    op.create_index(op.f("ix_key_bundles_used"), "key_bundles", ["used"], unique=False)


def downgrade() -> None:
    """Reverts the changes."""
    op.drop_index(op.f("ix_key_bundles_used"))

    op.drop_table("key_bundles")
    op.drop_index(op.f("ix_jobs_tenant_id_started"))
    op.drop_index(op.f("ix_jobs_tenant_id_created"))
    op.drop_index(op.f("ix_jobs_state_created"))
    op.drop_index(op.f("ix_jobs_runner_id"))

    op.drop_table("jobs")
    op.drop_index(op.f("ix_api_keys_tenant_id"))

    op.drop_table("api_keys")
    op.drop_table("tenants")
    op.drop_table("runners")
    op.drop_table("model_states")
