"""Credentials files of NATS: the JWT of a user, and the seed of the key that they sign with."""

import re
from pathlib import Path
from typing import Final

import nkeys

_BOTH: Final = re.compile(
    rb"-+BEGIN NATS USER JWT-+\n\S+\n.*?-+BEGIN USER NKEY SEED-+\n(?P<seed>\S+)\n", re.DOTALL
)


def are_credentials(path: Path) -> bool:
    """nats-py reads on for ever where a file holds no JWT, so it is given none that does not."""
    found = _BOTH.search(path.read_bytes())
    if found is None:
        return False
    try:
        nkeys.from_seed(bytearray(found["seed"])).wipe()
    except (nkeys.NkeysError, ValueError):
        return False
    return True
