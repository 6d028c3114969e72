"""The first circle: all tables, capture triggers, the functions applications call.

Revision ID: 0001
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).resolve().parents[1] / "sql"
FILES = ("tables_001.sql", "capture_001.sql", "guards_001.sql", "functions_001.sql", "comments_001.sql")


def upgrade() -> None:
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")  # the transaction must be open before the driver is used below SQLAlchemy
    raw = bind.connection.dbapi_connection
    for name in FILES:
        body = (SQL / name).read_text(encoding="utf-8")
        raw.run_async(lambda driver, body=body: driver.execute(body))
