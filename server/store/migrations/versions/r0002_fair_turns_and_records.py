"""Fair turns, stored answers of unfinished jobs, closed tenants, quotas in look-ups, versioned key blobs, usage and audit records.

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the changes."""
    op.add_column("tenants", sa.Column("closed", sa.Double(), nullable=True))
    op.add_column("tenants", sa.Column("lookups_per_day", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("queue_depth", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("requests_per_second", sa.Double(), nullable=True))
    op.add_column("tenants", sa.Column("turn", sa.Double(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("images_kept", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("traceparent", sa.String(length=64), nullable=True))
    op.add_column("key_bundles", sa.Column("blob", sa.String(length=160), nullable=False, server_default=""))
    op.execute("UPDATE key_bundles SET blob = 'keys/' || tenant_id || '/' || key_id || '.keys'")

    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("lookups", sa.BigInteger(), nullable=False),
        sa.Column("bytes_received", sa.BigInteger(), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_usage_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "day", name=op.f("pk_usage")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_time"), "audit", ["time"], unique=False)


def downgrade() -> None:
    """Reverts the changes. Key bundles that were uploaded since are dropped: the older release would not find their blobs."""
    op.drop_index(op.f("ix_audit_time"))
    op.drop_table("audit")
    op.drop_table("usage")
    op.execute("DELETE FROM key_bundles WHERE blob <> 'keys/' || tenant_id || '/' || key_id || '.keys'")
    op.drop_column("key_bundles", "blob")
    op.drop_column("jobs", "traceparent")
    op.drop_column("jobs", "images_kept")
    for name in ("turn", "requests_per_second", "queue_depth", "lookups_per_day", "closed"):
        op.drop_column("tenants", name)
