"""Look-ups of a job that its tenant's turns have been charged for: a long job is charged as it goes on.

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the changes. Jobs that are under way were charged when they were claimed."""
    op.add_column("jobs", sa.Column("bootstraps_charged", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET bootstraps_charged = bootstraps_total WHERE state = 'in_progress'")


def downgrade() -> None:
    """Reverts the changes."""
    op.drop_column("jobs", "bootstraps_charged")
