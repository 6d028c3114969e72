"""Alembic's entry: runs on the connection that ``syncd.store.migrate`` hands over, inside its transaction."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None, version_table="alembic_version", version_table_schema="syncd")
with context.begin_transaction():
    context.run_migrations()
