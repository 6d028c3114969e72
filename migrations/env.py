"""Alembic's entry: runs on the connection that ``syncd.store.migrate`` hands over, inside its transaction."""

from alembic import context

from syncd.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="alembic_version",
    version_table_schema="syncd",
)
with context.begin_transaction():
    context.run_migrations()
