"""`schema.sql`: the tables as all migrations leave them, to be read in one sitting; a test keeps it true.

python -m tallystick.store.schema --write src/tallystick/store/schema.sql
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from tallystick.store import migrate
from tallystick.store.embedded import embedded_postgres
from tallystick.store.embedded_paths import account_for, binaries_for


def dumped(data_dir: Path) -> str:
    """What pg_dump says of a fresh, migrated database, without what differs from run to run."""
    with embedded_postgres(data_dir) as embedded:
        with psycopg.connect(embedded.conninfo, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS schema_dump")
            conn.execute("CREATE DATABASE schema_dump")
        conninfo = psycopg.conninfo.make_conninfo(embedded.conninfo, dbname="schema_dump")
        migrate.migrate(conninfo)
        dump = subprocess.run(
            [
                binaries_for(account_for(data_dir)) / "pg_dump",
                "--schema-only",
                "--no-owner",
                "--no-privileges",
                "--no-comments",
                conninfo,
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    kept = [
        line
        for line in dump.splitlines()
        if line and not line.startswith(("--", "SET ", "SELECT pg_catalog.set_config", "\\"))
    ]
    return re.sub(r"public\.", "", "\n".join(kept)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, required=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        chosen.write.write_text(dumped(Path(folder) / "data"))
    sys.stderr.write(f"{chosen.write} written\n")


if __name__ == "__main__":
    main()
