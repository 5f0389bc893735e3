"""The line may record what it pushed to a DVC remote; production's account, what it removed from there."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give the accounts their rights."""
    op.execute("insert into gatehouse.append_right values ('gatehouse', 'dvc.pushed', null)")
    op.execute("insert into gatehouse.append_right values ('gatehouse_promotion', 'dvc.collected', null)")
