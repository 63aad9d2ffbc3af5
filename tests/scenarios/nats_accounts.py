"""A NATS operator, an account with JetStream, and its users, signed here as `nsc` signs them."""

import base64
import json
import os
import time
from typing import Any

import nkeys

_LIMITS = {"wildcards": True} | dict.fromkeys(
    ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
)
_JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class Signer:
    """Somebody with a key, whose public half is their name."""

    def __init__(self, kind: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
        self._key = nkeys.from_seed(bytearray(self.seed))
        self.name = bytes(self._key.public_key).decode()

    def says(self, of: "Signer", **what: Any) -> str:
        """A JWT that says so of somebody."""
        claims = {"jti": of.name, "iat": int(time.time()), "iss": self.name, "name": "test", "sub": of.name}
        parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, {**claims, "nats": {"version": 2, **what}})
        said = ".".join(_encoded(json.dumps(each).encode()) for each in parts)
        return f"{said}.{_encoded(self._key.sign(said.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Operator:
    """Whose servers let in users of one account."""

    def __init__(self) -> None:
        self._operator = Signer(nkeys.PREFIX_BYTE_OPERATOR)
        self._system, self._account = (Signer(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))

    def config(self) -> str:
        """Of a server."""
        operator = self._operator.says(self._operator, type="operator", system_account=self._system.name)
        known = "\n".join(
            f"{each.name}: {self._operator.says(each, type='account', limits=limits)}"
            for each, limits in ((self._system, _LIMITS), (self._account, _LIMITS | _JETSTREAM))
        )
        return f"""operator: {operator}
            system_account: {self._system.name}
            resolver: MEMORY
            resolver_preload: {{
            {known}
            }}"""

    def credentials(self) -> str:
        """Of a new user."""
        user = Signer(nkeys.PREFIX_BYTE_USER)
        jwt = self._account.says(user, type="user", subs=-1, data=-1, payload=-1)
        return f"""-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
-----BEGIN USER NKEY SEED-----
{user.seed.decode()}
------END USER NKEY SEED------
"""
