"""Read events of archived months as if they were still in the database, without putting them back.

The files are copied into tables of a schema of our own, where a view `events` shows them together with what is
stored. On a connection that looks there first, every statement that reads events reads both, and says the same as if
the months had never left. The schema is gone when the reading is over; a reader that was killed leaves one, which the
next one removes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from tallystick.flows.archive_events import NotArchived, file_of
from tallystick.providers import month_files
from tallystick.store import archives
from tallystick.store.db import PROOF_CONNECTION, connect


@asynccontextmanager
async def beside(conninfo: str, folder: Path | None) -> AsyncIterator[Mapping[str, Any]]:
    """Options for connections that read the archived months whose files are in a folder, too; None: no folder.

    A file that is not the one its month left in is NotArchived. Months whose file is not there stay archived.
    """
    if folder is None:
        yield PROOF_CONNECTION
        return
    async with await connect(conninfo, PROOF_CONNECTION) as conn:
        for left in await archives.left_beside(conn):
            await archives.close_beside(conn, left)
        known = await archives.every(conn)
        files = {each: path for each in known if (path := folder / each.file_name).is_file()}
        if not files and known:
            raise NotArchived(f"{folder} holds none of {', '.join(each.file_name for each in known)}")
        try:
            schema = await archives.open_beside(conn, str(conn.info.backend_pid))
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotArchived(f"reading archives needs a schema of its own: {error}") from None
        try:
            for each, path in files.items():
                if file_of(known, path) != each:
                    raise NotArchived(f"{path} is not the file that {each.month} was archived in")
                await archives.put_beside(conn, schema, each.month, month_files.read(path))
            await archives.analyze_beside(conn, schema)
            yield {
                **PROOF_CONNECTION,
                "options": f"{PROOF_CONNECTION['options']} -c search_path={schema},public",
            }
        finally:
            await archives.close_beside(conn, schema)
