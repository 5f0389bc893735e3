"""Bundles: whoever signs also records what left; the line records what came."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give the accounts the rights."""
    op.execute("insert into gatehouse.append_right values ('gatehouse_approval', 'bundle.exported', 'production')")
    op.execute("insert into gatehouse.append_right values ('gatehouse', 'bundle.imported', null)")
