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
    """Applies the changes."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Reverts the changes."""
    ${downgrades if downgrades else "pass"}
