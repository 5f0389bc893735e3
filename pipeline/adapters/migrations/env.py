"""Alembic's entry point: runs the migrations on the connection it was handed."""

from alembic import context

from pipeline.adapters.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_schemas=True,
    version_table_schema="gatehouse",
)
with context.begin_transaction():
    context.run_migrations()
