"""Prepaid usage beside metered usage: events per second, one hot wallet, and asking beforehand while events come in.

python -m bench.prepaid [--seconds 5] [--connections 64] [--workers N] [--json]
"""

import argparse
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

import psycopg
from rich.console import Console

from bench import server
from bench.catalogue import BALANCE, CREDITS, METERED, Offer, Refused
from bench.events import CUSTOMERS, Batches, Checks, Singles
from bench.load import Load, drive, warm_up
from bench.month import say
from bench.place import Place, crowded, own_place
from bench.prepaid_report import Books, Options, Report, as_json, show
from bench.report import complain
from bench.stretch import Stretch, stretched

CHECKED_BESIDE_SHARE: Final = 0.5
"""How much of the metered rate comes in while checks are asked."""

console: Final = Console(stderr=True)


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if report.is_right else 1


def measured(given: argparse.Namespace) -> Report:
    """On a server of its own."""
    offers = crowded(METERED, given.customers), crowded(BALANCE, given.customers), CREDITS
    with own_place(*offers, workers=given.workers) as place:
        return _measured(_Bench(given, place), *offers)


def _measured(bench: "_Bench", metered_offer: Offer, balance_offer: Offer, credits_offer: Offer) -> Report:
    given = bench.given
    metered = bench.singles("metered, single events", metered_offer)
    balance = bench.singles("balance, single events", balance_offer)
    metered_batches = bench.batches("metered, batches", metered_offer)
    balance_batches = bench.batches("balance, batches", balance_offer)
    hot = bench.singles("one hot wallet", credits_offer)
    events_per_s = metered.load.events_per_s * CHECKED_BESIDE_SHARE
    beside, paced, checks = bench.checks(events_per_s, events=metered_offer, asked=balance_offer)
    say("the books")
    return Report(
        machine=server.machine(),
        postgres=server.postgres(bench.place.conninfo),
        options=Options(
            given.seconds,
            given.connections,
            given.batch_connections,
            given.events_per_batch,
            given.checks_per_s,
            given.workers,
        ),
        metered=metered,
        balance=balance,
        metered_batches=metered_batches,
        balance_batches=balance_batches,
        hot=hot,
        beside=beside,
        checks_paced=paced,
        checks=checks,
        books=_books(bench.place.conninfo),
    )


class _Bench:
    """One server, and loads of it one after the other."""

    def __init__(self, given: argparse.Namespace, place: Place) -> None:
        self.given, self.place = given, place

    def singles(self, name: str, offer: Offer) -> Stretch:
        target = self.place.of(offer)
        talk = partial(Singles, target, secrets.token_hex(4))
        return self._stretch(name, partial(drive, target, talk, connections=self.given.connections))

    def batches(self, name: str, offer: Offer) -> Stretch:
        target, size = self.place.of(offer), self.given.events_per_batch
        talk = partial(Batches, target, secrets.token_hex(4), events_per_batch=size)
        return self._stretch(name, partial(drive, target, talk, connections=self.given.batch_connections))

    def checks(self, events_per_s: float, *, events: Offer, asked: Offer) -> tuple[Load, Load, Load]:
        """The ingest beside them, from a process of its own; checks at a pace; and as many as are answered."""
        given, target, metered = self.given, self.place.of(asked), self.place.of(events)
        say(f"checks, while {events_per_s:,.0f} metered events a second come in")
        ask = partial(drive, target, partial(Checks, target), connections=given.connections)
        ingest = partial(
            drive,
            metered,
            partial(Singles, metered, secrets.token_hex(4)),
            connections=given.connections,
            seconds=2 * (given.seconds + warm_up(given.seconds)),
            requests_per_s=events_per_s,
        )
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            other.submit(time.time).result()  # it is there
            beside = other.submit(ingest)
            time.sleep(warm_up(given.seconds))
            paced = ask(seconds=given.seconds, requests_per_s=given.checks_per_s)
            checks = ask(seconds=given.seconds)
            loads = beside.result(), paced, checks
        for name, load in zip(("events beside checks", "checks at a pace", "checks"), loads, strict=True):
            complain(name, load, console)
        return loads

    def _stretch(self, name: str, load: "partial[Load]") -> Stretch:
        say(name)
        done = stretched(partial(load, seconds=self.given.seconds), *self.place.roots)
        complain(name, done.load, console)
        return done


def _books(conninfo: str) -> Books:
    """What the events took, what the ledger moved, and how wallets stand, in one statement."""
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(
            """SELECT count(*), coalesce(sum(e.events), 0)::int8, coalesce(sum(e.deducted), 0)::text,
                      coalesce(sum(l.used), 0)::text,
                      count(*) FILTER (WHERE e.deducted <> l.used OR l.stands <> w.plan + w.purchased)
                 FROM wallets w
                CROSS JOIN LATERAL (
                      SELECT count(*) AS events, coalesce(sum(deducted), 0) AS deducted FROM events e
                       WHERE e.customer_id = w.customer_id AND e.drew_on = w.model) e
                CROSS JOIN LATERAL (
                      SELECT coalesce(sum(amount) FILTER (WHERE cause = 'usage'), 0) AS used,
                             coalesce(sum(CASE WHEN target IN ('plan_credits', 'purchased_credits', 'balance')
                                               THEN amount ELSE -amount END), 0) AS stands
                        FROM ledger_entries l
                       WHERE l.customer_id = w.customer_id AND l.subscription_id = w.subscription_id) l"""
        ).fetchall()
    return Books(*found[0])


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says; a measurement is started with the same words from elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m bench.prepaid", description="prepaid usage, measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each stretch is measured")
    parser.add_argument(
        "--connections", type=int, default=64, help="connections for single events and checks"
    )
    parser.add_argument("--batch-connections", type=int, default=64, help="connections for batches")
    parser.add_argument("--events-per-batch", type=int, default=100, choices=range(1, 101), metavar="1…100")
    parser.add_argument("--checks-per-s", type=float, default=500.0, help="how many checks when at a pace")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of the server; by default what `serve` starts",
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="who hold each of the two plans")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
