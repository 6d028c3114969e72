"""Taken addresses: whoever takes an address is found by it, and so is who gave up leaving it."""

from alembic import op

from syncd.store.migration_parts import run_parts

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_parts(op.get_bind(), revision)
