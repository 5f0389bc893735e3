"""The ledger's table, as Alembic's migrations create it."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(schema="gatehouse")

event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("run", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("environment", sa.Text),
    # Canonical JSON as text: jsonb would not give back the bytes that were hashed.
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
)
