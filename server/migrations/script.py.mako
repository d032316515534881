"""${message}.

Revision: ${up_revision}
Follows: ${down_revision}
"""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the tables."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Takes the changes back."""
    ${downgrades if downgrades else "pass"}
