"""The test clock: time travel for sandbox organizations (behaviour.md §21)."""

import asyncio
from datetime import timedelta
from typing import Annotated, Any, Final

from msgspec import Meta

from tallystick.api import versions
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.times import parse_instant, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.move_clock import perform_run, promise_run
from tallystick.store import clock
from tallystick.store.clock import Item, Run

PATIENCE_S: Final = 10.0
"""A run that ends within this is answered as completed; a longer one goes on behind (ruling 3)."""
_runs: set["asyncio.Task[None]"] = set()


class MoveClock(In, kw_only=True):
    advance_days: Annotated[int, Meta(ge=1, le=limits.CLOCK_ADVANCE_DAYS_MAX)] | None = None
    frozen_time: str | None = None


class RunItem(Out, kw_only=True):
    kind: str
    status: str
    due_at: str
    subscription_id: str
    customer_name: str | None
    invoice_number: str | None
    invoice_id: str | None
    outcome: str | None
    detail: str | None
    error: str | None


class RunFields(Out, kw_only=True):
    id: str
    status: str
    started_at_time: str
    target_time: str
    estimated_deadline_count: int
    completed_deadline_count: int
    failed_deadline_count: int
    error: str | None
    items: list[RunItem]


class TestClockRun(RunFields, kw_only=True):
    object: str = "test_clock_run"
    livemode: bool
    simulated_time: str | None | Maybe = MISSING
    is_active: bool | Maybe = MISSING
    now: str | Maybe = MISSING


class TestClock(Out, kw_only=True):
    simulated_time: str | None
    is_active: bool
    now: str
    latest_run: RunFields | None
    object: str = "test_clock"
    livemode: bool


def _item(item: Item) -> RunItem:
    return RunItem(
        kind=item.kind,
        status=item.status,
        due_at=show_instant(item.due_at),
        subscription_id=ids.show(ids.SUBSCRIPTION, item.subscription_id),
        customer_name=item.customer_name,
        invoice_number=item.invoice_number,
        invoice_id=ids.show(ids.INVOICE, item.invoice_id) if item.invoice_id else None,
        outcome=item.outcome,
        detail=item.detail,
        error=item.error,
    )


def _fields(run: Run, items: list[Item]) -> dict[str, Any]:
    return {
        "id": ids.show(ids.CLOCK_RUN, run.id),
        "status": run.status,
        "started_at_time": show_instant(run.started_at_time),
        "target_time": show_instant(run.target_time),
        "estimated_deadline_count": max(run.estimated, len(items)),
        "completed_deadline_count": sum(item.status == "completed" for item in items),
        "failed_deadline_count": sum(item.status == "failed" for item in items),
        "error": run.error,
        "items": [_item(item) for item in items],
    }


def _sandbox(call: Call[Any]) -> None:
    if call.live:
        raise Problem("sandbox_only", "Only a sandbox organization has a test clock.")


async def _latest(call: Call[Any]) -> tuple[Run, list[Item]] | None:
    run = await clock.latest(call.conn, organization_id=call.organization.id)
    return None if run is None else (run, await clock.items(call.conn, run_id=run.id))


async def _clock(call: Call[Any]) -> TestClock:
    latest = await _latest(call)
    simulated = call.organization.simulated_time
    return TestClock(
        simulated_time=show_instant(simulated) if simulated else None,
        is_active=simulated is not None,
        now=show_instant(call.now),
        latest_run=RunFields(**_fields(*latest)) if latest else None,
        livemode=call.live,
    )


async def get(call: Call[None]) -> Reply:
    _sandbox(call)
    return Reply(await _clock(call))


async def advance(call: Call[MoveClock]) -> Reply:
    """Promise the run with the request; `run` performs it after the commit."""
    _sandbox(call)
    body = call.body
    if (body.advance_days is None) == (body.frozen_time is None):
        raise InvalidRequest(
            FieldError("advanceDays", "exactly one of advanceDays and frozenTime is required")
        )
    if body.advance_days is not None:
        target = call.now + timedelta(days=body.advance_days)
    else:
        found = parse_instant(body.frozen_time or "")
        if found is None:
            raise InvalidRequest(FieldError("frozenTime", "must be an ISO 8601 date and time"))
        target = found.replace(microsecond=found.microsecond // 1000 * 1000)
    run = await promise_run(
        call.conn, organization=call.organization, target=target, now=call.now, wall=call.wall
    )
    return Reply(TestClockRun(**_fields(run, []), livemode=call.live), 202)


async def run(call: Call[MoveClock]) -> Reply:
    """Perform the promised run, and answer with what happened if that does not take long.

    No connection is held while it waits, or a few who wait would stop everybody else.
    """
    services = call.services
    async with services.database.reading() as call.conn:
        latest = await _latest(call)
    assert latest is not None
    task = asyncio.create_task(
        perform_run(
            services.database, services.payments, organization_id=call.organization.id, run_id=latest[0].id
        )
    )
    _runs.add(task)
    task.add_done_callback(_runs.discard)
    clock_of_loop = asyncio.get_running_loop().time
    patient_until = clock_of_loop() + PATIENCE_S
    await asyncio.wait([task], timeout=PATIENCE_S)
    while True:
        async with services.database.reading() as call.conn:
            done = await _latest(call)
        assert done is not None
        if done[0].status not in ("pending", "running") or clock_of_loop() >= patient_until:
            break
        await asyncio.sleep(0.02)  # the sweeper, perhaps of another process, was quicker and is at it
    shown = TestClockRun(**_fields(*done), livemode=call.live)
    if not versions.is_bare(call.version):  # older clients read the clock, not the run
        simulated = show_instant(done[0].target_time)
        shown.simulated_time, shown.is_active, shown.now = simulated, True, simulated
    return Reply(shown, 202)


async def process_billing(call: Call[None]) -> Reply:
    raise Problem("endpoint_deprecated", "Move the clock with POST /test-clock instead.")


OPERATIONS = (
    Operation(
        name="testClock.get",
        method="GET",
        path="/test-clock",
        summary="Where the test clock stands and what its last run did",
        resource="test_clock",
        returns=TestClock,
        handler=get,
        errors=("sandbox_only",),
    ),
    Operation(
        name="testClock.advance",
        method="POST",
        path="/test-clock",
        summary="Move the test clock forward, living through every deadline on the way",
        resource="test_clock",
        body=MoveClock,
        returns=TestClockRun,
        handler=advance,
        after=run,
        status=202,
        errors=("sandbox_only", "clock_run_in_progress"),
    ),
    Operation(
        name="testClock.processBilling",
        method="POST",
        path="/test-clock/process-billing",
        summary="Retired: move the clock instead",
        resource="test_clock",
        returns=TestClock,
        handler=process_billing,
        errors=("endpoint_deprecated",),
    ),
)
