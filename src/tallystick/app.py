"""The composition root: settings → database → services → routes. Knows everybody, is known by nobody."""

import gc
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from prometheus_client import CollectorRegistry, Gauge, generate_latest, multiprocess
from psycopg_pool import PoolTimeout
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tallystick import settings
from tallystick.api import metrics, openapi, reference, short_cut
from tallystick.api.auth import Keyring
from tallystick.api.callers import Callers
from tallystick.api.check_routes import CheckRoute
from tallystick.api.cloud_events import CloudEventsRoute
from tallystick.api.health import Health
from tallystick.api.http import Api, json_route
from tallystick.api.ingest_routes import IngestRoutes
from tallystick.api.operations import Services
from tallystick.api.rate_limits import RateLimits
from tallystick.api.stream_route import StreamRoute
from tallystick.core.throttle import Throttle
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.checker import Checker
from tallystick.providers import ai_prices
from tallystick.providers.sandbox import Sandbox
from tallystick.settings import Settings
from tallystick.store.db import Database
from tallystick.web import checkout
from tallystick.worker.key_keeper import KeyKeeper
from tallystick.worker.nightly import Nightly
from tallystick.worker.sweep import Sweeper

log = logging.getLogger("tallystick")
_WAITING = Gauge(
    "tallystick_ingest_rows_waiting", "Events waiting for their commit", multiprocess_mode="livesum"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def wall() -> datetime:
    """The wall clock, to the millisecond, as the wire shows every time."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return _EPOCH + timedelta(0, seconds, rest // 1_000_000 * 1_000)


def _calm_collector() -> None:
    """A batch makes tens of thousands of short-lived objects and no cycles: look for cycles less often, and
    never among what was loaded at start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _rate_limits(chosen: Settings) -> RateLimits | None:
    """This process's part of them, so that all processes together allow what the operator said."""
    if not chosen.rate_limit:
        return None
    return RateLimits(
        Throttle(chosen.rate_limit, chosen.rate_burst, shared_by=chosen.workers), time.monotonic_ns
    )


class Application:
    """One server process as an ASGI application; its lifespan owns the pool, the batcher, the sweeper, the nightly job and the
    key keeper.

    `clock` is what it takes for the wall clock.
    """

    def __init__(self, chosen: Settings, clock: Callable[[], datetime] = wall) -> None:
        if chosen.database_url is None:
            raise ValueError("a server process needs a database URL; `tallystick serve` provides it")
        self.database = Database(chosen.database_url)
        self.books = Books()
        self.payments = Sandbox()
        beside = bool(chosen.own_cores)
        self.batcher = Batcher(chosen.database_url, self.books, clock, workers=chosen.workers, beside=beside)
        self.checker = Checker(chosen.database_url, self.books, clock, beside=beside)
        used_keys: set[int] = set()
        self.sweeper = Sweeper(
            self.database, self.payments, clock, every_s=chosen.sweep_every_s, used_keys=used_keys
        )
        rates = _rate_limits(chosen)
        self.nightly = Nightly(chosen.database_url, clock)
        self.key_keeper = KeyKeeper(
            chosen.database_url,
            self.books.filters,
            generation_bytes_max=chosen.key_generation_mb * 2**20,
            every_s=chosen.sweep_every_s,
        )
        services = Services(
            self.database, self.books, self.payments, clock, chosen.public_url, used_keys, rates
        )
        callers = Callers(self.database, self.books, Keyring(self.database, used_keys), clock, rates)
        ingest = IngestRoutes(self.batcher, callers)
        self._api = Api(
            services,
            callers,
            ingest,
            StreamRoute(ingest, callers),
            CheckRoute(self.checker, callers),
            CloudEventsRoute(ingest, callers),
            self._pages(clock),
        )

    def _pages(self, clock: Callable[[], datetime]) -> list[BaseRoute]:
        health = Health(self.database)
        return [
            json_route("/health/live", health.live),
            json_route("/health/ready", health.ready),
            json_route("/api/openapi.json", self._openapi),
            Route("/api/reference", self._reference, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            *checkout.routes(self.database, self.payments, clock),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"][short_cut.STATE] = short_cut.routes(self._api)
            await self._lifespan(receive, send)
        else:
            await self._api(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.database.open()
            ai_prices.bundled()  # read now, not while the first call of a model waits
            _calm_collector()
            self.batcher.start()
            self.sweeper.start()
            self.nightly.start()
            self.key_keeper.start()
        except (psycopg.Error, PoolTimeout) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.key_keeper.stop()
        await self.nightly.stop()
        await self.sweeper.stop()
        await self.checker.stop()
        await self.batcher.stop()
        await self.database.close()
        metrics.tell()
        await send({"type": "lifespan.shutdown.complete"})

    async def _openapi(self) -> tuple[int, bytes]:
        return 200, openapi.rendered()

    async def _reference(self, request: Request) -> Response:
        return HTMLResponse(reference.page(openapi.document()))

    async def _metrics(self, request: Request) -> Response:
        metrics.tell()
        _WAITING.set(self.batcher.rows_waiting)
        registry: Any = None
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(
            generate_latest(registry) if registry else generate_latest(), media_type=metrics.METRICS_TYPE
        )


def create() -> Application:
    """What uvicorn calls in each server process."""
    return Application(settings.load())
