"""Keys apart: what makes a lane the only one of its relation stands where no delivery writes.

Each part is an SQL file of its own, named ``<part>_007.sql``.

Revision ID: 0007
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQL = Path(__file__).resolve().parents[1] / "sql"


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")  # the transaction must be open before the driver is used below SQLAlchemy
    for part in sorted(SQL.glob("*_007.sql")):
        body = part.read_text(encoding="utf-8")
        bind.connection.dbapi_connection.run_async(lambda driver, body=body: driver.execute(body))
    # A column that a part gives to a mirrored table belongs to its past, too.
    bind.exec_driver_sql("CALL syncd.define_as_of()")
    bind.exec_driver_sql("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA crm, syncd FROM PUBLIC")
