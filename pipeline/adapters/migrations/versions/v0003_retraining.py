"""The line may ask for a new model when drift was measured."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give the line's account the right."""
    op.execute("insert into gatehouse.append_right values ('gatehouse', 'retrain.requested', null)")
