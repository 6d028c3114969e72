"""May land: each lane says until when a call of it that was in doubt may still reach the CRM.

Each part is an SQL file of its own, named ``<part>_006.sql``.

Revision ID: 0006
"""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQL = Path(__file__).resolve().parents[1] / "sql"


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")  # the transaction must be open before the driver is used below SQLAlchemy
    for part in sorted(SQL.glob("*_006.sql")):
        body = part.read_text(encoding="utf-8")
        bind.connection.dbapi_connection.run_async(lambda driver, body=body: driver.execute(body))
    # A column that a part gives to a mirrored table belongs to its past, too.
    bind.exec_driver_sql("CALL syncd.define_as_of()")
    bind.exec_driver_sql("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA crm, syncd FROM PUBLIC")
