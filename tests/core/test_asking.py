"""Asking beforehand: which event so much of a feature would be, and what it is judged by."""

from dataclasses import replace
from typing import Any

import pytest

from tallystick.core.asking import supposed
from tallystick.core.catalog import Catalogue
from tallystick.core.events import UsageEvent
from tallystick.core.meters import Aggregation, Filter, Meter, Operator, measure
from tallystick.core.wallets import Model, Wallet
from tests.core.offers import LONG_AGO, SEARCH, catalogue, feature, meter, terms
from tests.literals import D, U

EU = Filter("region", Operator.EQUALS, "eu")
FIVE = UsageEvent("api_calls", "ada", D("5"))


def offer(*meters: Meter) -> Catalogue:
    plain = catalogue([terms("100")], measured=meters[0])
    return replace(plain, meters={meters[0].event_code: meters})


def counted(offered: Catalogue, *, with_properties: bool = False, **sent: Any) -> list[Any]:
    """What the event asked for would add to each meter; None: nothing."""
    event, meant = supposed(
        FIVE._replace(**sent), offered, feature(), LONG_AGO, with_properties=with_properties
    )
    measured = [measure(each, event.value, event.properties) for each in meant.meters[event.feature]]
    return [each and each.quantity for each in measured]


def test_it_is_sent_under_the_code_that_the_meter_listens_to() -> None:
    offered = offer(meter(event_code="request"))
    event, _ = supposed(FIVE, offered, feature(), LONG_AGO, with_properties=False)
    assert event == FIVE._replace(feature="request")


def test_nothing_need_be_supposed_of_a_plain_sum() -> None:
    offered = offer(meter())
    assert supposed(FIVE, offered, feature(), LONG_AGO, with_properties=False) == (FIVE, offered)


@pytest.mark.parametrize(
    "asked",
    [
        meter("count"),
        replace(meter(), filters=(EU,)),
        replace(meter(), property_name="size"),
        meter("unique"),
        replace(meter("max"), filters=(EU,)),
    ],
)
def test_without_properties_units_are_meant(asked: Meter) -> None:
    assert counted(offer(asked)) == [5]


def test_with_properties_the_event_is_taken_as_it_is() -> None:
    offered = offer(replace(meter("count"), filters=(EU,)))
    assert counted(offered, with_properties=True, properties={"region": "us"}) == [None]
    assert counted(offered, with_properties=True, properties={"region": "eu"}) == [1]


def test_other_features_see_the_event_that_it_is() -> None:
    other = replace(meter("count", version=2), feature_id=SEARCH)
    filtered = replace(meter(version=3), feature_id=U(9), filters=(EU,))
    assert counted(offer(meter(), other, filtered)) == [5, 1, None]  # one event of five
    assert counted(offer(meter("count"), other)) == [5, 5]  # five events
    assert other.aggregation is Aggregation.COUNT


@pytest.mark.parametrize(
    ("plan", "cost", "overdraft", "pays"),
    [
        ("10", "10", False, True),
        ("10", "10.000000000001", False, False),
        ("10", "10.000000000001", True, True),
        ("-5", "0", False, True),  # what is free is accepted whatever is owed
        ("0", "0.000000000001", False, False),
    ],
)
def test_what_a_wallet_pays(plan: str, cost: str, overdraft: bool, pays: bool) -> None:
    assert Wallet(Model.BALANCE, 0, plan=D(plan)).pays(D(cost), overdraft=overdraft) is pays
