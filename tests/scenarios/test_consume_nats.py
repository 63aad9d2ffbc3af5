"""`tallystick consume nats`: whoever dies, each message is counted once, or kept where somebody sees it."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import shop
from tests.audit import audit, stored_keys
from tests.conftest import Organization
from tests.scenarios.importing import AT, used
from tests.scenarios.jetstream import STREAM, Message, Nats, a_nats, command, consumed, consuming
from tests.scenarios.nats_accounts import Operator
from tests.scenarios.witnesses import a_house, kill_postgres, until, wait_for_another_postgres

CLOUD = {
    "specversion": "1.0",
    "type": "api_calls",
    "source": "svc",
    "subject": "ada",
    "time": AT,
}


REPAIRED_AFTER_S = 5
"""One time in twenty nats-server 2.9.10, when a delay is over, brings the acknowledged message once more in place of
the one that was put off, which then comes when the time for its acknowledgement is up."""


@pytest.fixture
def nats() -> Iterator[Nats]:
    with a_nats() as found:
        yield found


def counted_once(said: str, *, refused: int) -> bool:
    """Whether the only event was stored, however often it was brought; see REPAIRED_AFTER_S."""
    return bool(re.search(rf"1 stored, \d+ already there, {refused} refused", said))


def message(headers: dict[str, str] | None = None, **fields: Any) -> Message:
    said = {"featureCode": "api_calls", "customerId": "ada", "timestamp": AT, **fields}
    return json.dumps(said).encode(), headers or {}


def test_events_and_cloud_events_are_counted_and_acknowledged(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    binary = {f"ce-{name}": value for name, value in {**CLOUD, "id": "3"}.items()}
    messages: list[Message] = [
        message(value=1, eventId="mine"),
        message(value=2),
        message(value=2),  # no key: another event, whatever it says
        message({"Content-Type": "application/json"}, value=0.5),
        (json.dumps({**CLOUD, "id": "1", "data": {"value": 10, "region": "eu"}}).encode(), {}),
        (
            json.dumps({**CLOUD, "id": "2", "data": {"value": 20}}).encode(),
            {"Content-Type": "application/cloudevents+json; charset=utf-8"},
        ),
        (json.dumps({"value": 30}).encode(), {**binary, "content-type": "application/json"}),
    ]
    nats.publish(messages)
    said = consumed(nats, organization, database_url, "--refused", str(tmp_path / "refused.ndjson"))
    assert "stopped: 7 stored, 0 already there, 0 refused, 0 put off; 0 waiting" in said
    assert float(used(organization)) == 65.5
    keys = stored_keys(database_url, organization)
    assert {"mine", "3:svc:1", "3:svc:2", "3:svc:3"} < keys.keys()
    assert sum(key.startswith(f"nats:{STREAM}:") for key in keys) == 3
    assert (tmp_path / "refused.ndjson").read_bytes() == b""


def test_what_is_delivered_again_is_counted_once(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    nats.publish([message(value=5), message(value=7, eventId="k"), message(value=7, eventId="k")])
    first = consumed(nats, organization, database_url, "--refused", str(tmp_path / "refused"))
    assert "2 stored, 1 already there" in first
    nats.forget_consumer()  # the next one has everything delivered anew
    second = consumed(nats, organization, database_url, "--refused", str(tmp_path / "refused"))
    assert "0 stored, 3 already there" in second
    assert used(organization) == 12


def test_a_stream_that_is_made_anew_has_messages_of_its_own(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    for _ in range(2):
        nats.publish([message(value=5)])
        said = consumed(nats, organization, database_url, "--refused", str(tmp_path / "refused"))
        assert "1 stored" in said
        nats.ask(lambda js: js.delete_stream(STREAM))
        nats.add_stream()
    assert used(organization) == 10


def test_a_message_that_is_no_usage_is_kept_and_then_dropped(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    nats.add_stream("REFUSED", "refused.usage")
    bad: list[Message] = [
        (b"{not json", {}),
        message(value=-1),
        message(customerId="nobody"),
        message(value=2, eventId="k"),  # another one has that key
        (json.dumps({**CLOUD, "id": "1", "subject": "nobody"}).encode(), {}),
        (b"[]", {"content-type": "text/csv"}),
        (b"", {"ce-specversion": "0.3"}),
        (b"\xff", {}),
    ]
    nats.publish([message(value=1, eventId="k"), *bad, message(value=3)])
    file = tmp_path / "refused.ndjson"
    more = ["--refused", str(file), "--dead-letter", "refused.usage", "--tries", "1"]
    said = consumed(nats, organization, database_url, *more)
    assert f"2 stored, 0 already there, {len(bad)} refused, 0 put off" in said
    assert used(organization) == 4
    notes = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((note["sequence"], note["code"]) for note in notes) == [
        (2, "invalid_json"),
        (3, "validation_error"),
        (4, "customer_not_found"),
        (5, "duplicate"),
        (6, "customer_not_found"),
        (7, "validation_error"),
        (8, "validation_error"),
        (9, "invalid_json"),
    ]
    by_sequence = {note["sequence"]: note for note in notes}
    assert by_sequence[2]["data"] == "{not json"
    assert by_sequence[3]["data"]["value"] == -1
    assert by_sequence[8]["headers"] == {"ce-specversion": "0.3"}
    kept = nats.messages("REFUSED")
    assert {each.data or b"" for each in kept} == {data for data, _ in bad}
    assert {(int(each.headers["Tallystick-Sequence"]), each.headers["Tallystick-Code"]) for each in kept} == {
        (note["sequence"], note["code"]) for note in notes
    }
    assert nats.consumer().num_redelivered == 0


def test_what_cannot_be_kept_is_not_dropped(
    organization: Organization, database_url: str, nats: Nats
) -> None:
    """The stream of refused messages takes no more; once it does, the message is there."""
    nats.ask(
        lambda js: js.add_stream(
            name="REFUSED", subjects=["refused.usage"], max_msgs=1, discard="new", duplicate_window=1
        )
    )
    nats.add_consumer(ack_wait=REPAIRED_AFTER_S)
    nats.publish([(b"full", {})], "refused.usage")
    nats.publish([(b"{not json", {}), message(value=3)])
    with consuming(nats, organization, database_url, "--dead-letter", "refused.usage") as running:
        until(lambda: used(organization) == 3, "what is good is counted")
        until(nats.came_again, "the other comes again")
        nats.ask(lambda js: js.purge_stream("REFUSED"))
        until(nats.is_settled, "it is settled")
        said = running.stop()
    assert counted_once(said, refused=1), said
    assert used(organization) == 3
    (kept,) = (nats.ask(lambda js: js.get_last_msg("REFUSED", "refused.usage")).data,)
    assert kept == b"{not json"


def test_a_customer_who_comes_later_is_waited_for(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    nats.publish([message(customerId="bob", value=4)])
    with consuming(nats, organization, database_url, "--refused", str(tmp_path / "refused")) as running:
        until(nats.came_again, "it was put off")
        shop.subscribe(organization, "bob")
        until(nats.is_settled, "it is settled")
        said = running.stop()
    assert "1 stored, 0 already there, 0 refused" in said
    assert (tmp_path / "refused").read_bytes() == b""


def test_every_message_is_counted_once_whoever_is_killed(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    """The consumer by kill -9, again and again, and once NATS with it; half of the messages have no key."""
    rounds, share, dice = 4, 1_500, random.Random(17)
    nats.add_consumer(ack_wait=1, max_ack_pending=2_000)
    more = ["--refused", str(tmp_path / "refused"), "--batch", "100"]
    total = before = in_the_middle = 0
    for kill in range(rounds):
        numbers = range(kill * share, (kill + 1) * share)
        nats.publish([message(value=each % 7, eventId=f"k{each}" if each % 2 else None) for each in numbers])
        total += sum(each % 7 for each in numbers)
        with consuming(nats, organization, database_url, *more) as running:
            until_more_than(before, organization)
            time.sleep(dice.random() * 0.05)
            running.stop(signal.SIGKILL)
        before = int(used(organization))
        in_the_middle += before < total
        if kill == 1:
            nats.stop(signal.SIGKILL)
            nats.start()
    assert in_the_middle
    consumed(nats, organization, database_url, *more)
    assert used(organization) == total
    assert set(stored_keys(database_url, organization).values()) == {1}
    assert audit(database_url, organization) == rounds * share
    assert (tmp_path / "refused").read_bytes() == b""


def test_a_nats_that_goes_away_is_waited_for(
    organization: Organization, database_url: str, tmp_path: Path, nats: Nats
) -> None:
    nats.publish([message(value=1)])
    with consuming(nats, organization, database_url, "--refused", str(tmp_path / "refused")) as running:
        until(lambda: used(organization) == 1, "the first is counted")
        nats.stop(signal.SIGKILL)
        time.sleep(10)  # in which it says how it stands, too
        nats.start()
        nats.publish([message(value=2)])
        until(lambda: used(organization) == 3, "the second is counted")
        said = running.stop()
    assert "INFO tallystick.consume 1 stored, 0 already there, 0 refused, 0 put off; 0 waiting" in said
    assert running.process.returncode == 0


def test_a_postgres_that_is_killed_loses_nothing(tmp_path: Path, nats: Nats) -> None:
    count = 3_000
    with a_house() as house:
        nats.publish([message(timestamp=None, value=1) for _ in range(count)])
        more = ["--refused", str(tmp_path / "refused"), "--batch", "50"]
        with consuming(nats, house.shop, house.database_url, *more) as running:
            for share in (0, 1_000):
                until_more_than(share, house.shop)
                before = house.postgres.pid()
                kill_postgres(house.postgres)
                wait_for_another_postgres(house.postgres, before)
                house.server.wait_until_ready()
            until(nats.is_settled, "every message is settled")
            said = running.stop()
        assert running.process.returncode == 0, said
        assert audit(house.database_url, house.shop) == count
        assert set(stored_keys(house.database_url, house.shop).values()) == {1}
    assert (tmp_path / "refused").read_bytes() == b""


def test_a_file_that_cannot_be_written_keeps_the_message_in_the_stream(
    organization: Organization, database_url: str, nats: Nats
) -> None:
    nats.add_consumer(ack_wait=REPAIRED_AFTER_S)
    nats.publish([(b"{not json", {}), message(value=3)])
    with consuming(nats, organization, database_url, "--refused", "/dev/full") as running:
        until(nats.came_again, "it comes again")
        said = running.stop()
    assert counted_once(said, refused=0), said
    assert used(organization) == 3
    assert running.process.returncode == 0
    assert not nats.is_settled()


def test_who_lacks_nats_py_is_told_what_to_install(
    organization: Organization, database_url: str, nats: Nats, tmp_path: Path
) -> None:
    (tmp_path / "nats.py").write_text("raise ModuleNotFoundError('nats')")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command(nats, organization, database_url, "--refused", str(tmp_path / "refused")),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 1
    assert "tallystick[nats]" in done.stderr


def until_more_than(count: int, business: Organization) -> None:
    until(lambda: used(business) > count, f"more than {count} are counted")


def assert_told(command: list[str], code: int, told: str) -> None:
    """It ends with that code, says why, and gives no secret away."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert told in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ([], 2, "say where refused messages are kept"),
        (["--refused", "{there}/none/refused"], 2, "No such file"),
        (["--refused", "{there}/r", "--stream", "OTHER"], 1, "there is no stream OTHER"),
        (["--dead-letter", "nobody.takes.it"], 1, "none that takes nobody.takes.it"),
        (["--dead-letter", "usage.refused"], 1, "would come back"),
        (["--refused", "{there}/r", "--durable", "hasty"], 1, "gives a message up after 3 deliveries"),
        (["--refused", "{there}/r", "--subject", "usage.eu", "--durable", "all"], 1, "filters by usage.>"),
        (
            ["--refused", "{there}/r", "--url", "nats://user:secret@127.0.0.1:9"],
            1,
            "does not answer at nats://127.0.0.1:9",
        ),
    ],
)
def test_what_cannot_be_consumed_is_told(
    organization: Organization,
    database_url: str,
    tmp_path: Path,
    nats: Nats,
    more: list[str],
    code: int,
    told: str,
) -> None:
    nats.ask(
        lambda js: js.add_consumer(STREAM, durable_name="hasty", max_deliver=3, filter_subject="usage.>")
    )
    nats.ask(lambda js: js.add_consumer(STREAM, durable_name="all", filter_subject="usage.>"))
    filled = [each.format(there=tmp_path) for each in more]
    assert_told(command(nats, organization, database_url, *filled), code, told)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Nats]:
    """Lets in who has credentials."""
    with a_nats(Operator()) as found:
        yield found


def test_credentials_say_who_consumes(
    organization: Organization, database_url: str, tmp_path: Path, guarded: Nats
) -> None:
    guarded.publish([message(value=5)])
    more = ["--refused", str(tmp_path / "refused"), "--credentials", str(guarded.credentials)]
    assert "1 stored" in consumed(guarded, organization, database_url, *more)
    assert used(organization) == 5


@pytest.mark.parametrize(
    ("credentials", "code", "told"),
    [
        (None, 1, "Authorization Violation"),
        (Operator().credentials(), 1, "Authorization Violation"),  # of somebody else's user
        ("secret", 1, "does not hold the JWT of a user and the seed of their key"),
        (Operator().credentials().replace("SU", "S0"), 1, "does not hold the JWT"),
        ("", 2, "does not exist"),
    ],
    ids=["none", "somebody else's", "no credentials", "a broken seed", "no file"],
)
def test_whom_nats_does_not_let_in_is_told(
    organization: Organization,
    database_url: str,
    tmp_path: Path,
    guarded: Nats,
    credentials: str | None,
    code: int,
    told: str,
) -> None:
    more = ["--refused", str(tmp_path / "refused")]
    if credentials is not None:
        more += ["--credentials", str(tmp_path / "creds")]
        if credentials:
            (tmp_path / "creds").write_text(credentials)
    assert_told(command(guarded, organization, database_url, *more), code, told)
