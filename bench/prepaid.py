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
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

import psycopg
from rich.console import Console

from bench import server
from bench.catalogue import BALANCE, CREDITS, METERED, Offer, Refused, prepare
from bench.events import Batches, Checks, Singles, Target
from bench.load import WARM_UP_S, Load, drive
from bench.prepaid_report import Books, Options, Report, Stretch, as_json, show
from bench.report import complain

CHECKED_BESIDE_SHARE: Final = 0.5
"""How much of the metered rate comes in while checks are asked."""

console: Final = Console(stderr=True)


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = _own_server(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if report.is_right else 1


def _own_server(given: argparse.Namespace) -> Report:
    with server.Tallystick() as ours:
        _say("starting a server in a directory of its own")
        ours.start(workers=given.workers)
        ours.wait_until_ready()
        made = ours.command("organizations", "create", "--name", "Bench", "--mode", "sandbox")
        conninfo = str(ours.command("doctor")["databaseUrl"])
        target = Target(ours.url, str(made["apiKey"]))
        try:
            _say("preparing the catalogue and its customers")
            prepare(target, METERED, BALANCE, CREDITS)
            return _measure(_Bench(given, target, ours.pid, server.postmaster_of(conninfo)), conninfo)
        except OSError:
            ours.must_live()  # its last words say more than a refused connection
            raise


def _measure(bench: "_Bench", conninfo: str) -> Report:
    given = bench.given
    metered = bench.singles("metered, single events", METERED)
    balance = bench.singles("balance, single events", BALANCE)
    metered_batches = bench.batches("metered, batches", METERED)
    balance_batches = bench.batches("balance, batches", BALANCE)
    hot = bench.singles("one hot wallet", CREDITS)
    beside, paced, checks = bench.checks(metered.load.events_per_s * CHECKED_BESIDE_SHARE)
    _say("the books")
    return Report(
        machine=server.machine(),
        postgres=server.postgres(conninfo),
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
        books=_books(conninfo),
    )


class _Bench:
    """One server, and loads of it one after the other."""

    def __init__(self, given: argparse.Namespace, target: Target, *roots: int) -> None:
        self.given, self._target, self._roots = given, target, roots

    def singles(self, name: str, offer: Offer) -> Stretch:
        talk = partial(Singles, self._of(offer), secrets.token_hex(4))
        return self._stretch(name, partial(drive, self._of(offer), talk, connections=self.given.connections))

    def batches(self, name: str, offer: Offer) -> Stretch:
        size = self.given.events_per_batch
        talk = partial(Batches, self._of(offer), secrets.token_hex(4), events_per_batch=size)
        connections = self.given.batch_connections
        return self._stretch(name, partial(drive, self._of(offer), talk, connections=connections))

    def checks(self, events_per_s: float) -> tuple[Load, Load, Load]:
        """The ingest beside them, from a process of its own; checks at a pace; and as many as are answered."""
        given, target = self.given, self._of(BALANCE)
        _say(f"checks, while {events_per_s:,.0f} metered events a second come in")
        ask = partial(drive, target, partial(Checks, target), connections=given.connections)
        ingest = partial(
            drive,
            self._of(METERED),
            partial(Singles, self._of(METERED), secrets.token_hex(4)),
            connections=given.connections,
            seconds=2 * (given.seconds + WARM_UP_S),
            requests_per_s=events_per_s,
        )
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            other.submit(time.time).result()  # it is there
            beside = other.submit(ingest)
            time.sleep(WARM_UP_S)
            paced = ask(seconds=given.seconds, requests_per_s=given.checks_per_s)
            checks = ask(seconds=given.seconds)
            loads = beside.result(), paced, checks
        for name, load in zip(("events beside checks", "checks at a pace", "checks"), loads, strict=True):
            complain(name, load, console)
        return loads

    def _of(self, offer: Offer) -> Target:
        return Target(self._target.url, self._target.api_key, crowd=offer.crowd)

    def _stretch(self, name: str, load: "partial[Load]") -> Stretch:
        _say(name)
        server_root, postmaster = self._roots
        before = self._cpu(server_root, postmaster)
        done = load(seconds=self.given.seconds)
        after = self._cpu(server_root, postmaster)
        complain(name, done, console)
        ours, theirs = (1e6 * (b - a) / max(done.events, 1) for a, b in zip(before, after, strict=True))
        return Stretch(done, ours, theirs)

    @staticmethod
    def _cpu(server_root: int, postmaster: int) -> tuple[float, float]:
        """Of the server's processes without PostgreSQL, whoever is its parent; and of PostgreSQL."""
        theirs = server.cpu_of(postmaster)
        return server.cpu_of(server_root, postmaster) - theirs, theirs


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


def _say(what: str) -> None:
    console.print(f"… {what}", style="dim", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.prepaid", description="prepaid usage, measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each stretch is measured")
    parser.add_argument(
        "--connections", type=int, default=64, help="connections for single events and checks"
    )
    parser.add_argument("--batch-connections", type=int, default=16, help="connections for batches")
    parser.add_argument("--events-per-batch", type=int, default=100, choices=range(1, 101), metavar="1…100")
    parser.add_argument("--checks-per-s", type=float, default=500.0, help="how many checks when at a pace")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of the server; by default what `serve` starts",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
