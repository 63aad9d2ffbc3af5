"""How our server processes speak HTTP: as uvicorn does, and an application may drop a connection."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """`scope["state"]["abort"]()` drops it at once: uvicorn itself closes only after all is sent that was said,
    which is never where the other end does not read."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort
