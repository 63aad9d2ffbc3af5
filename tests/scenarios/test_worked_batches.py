"""The published worked examples about batches and limits (`contract/cases/worked.json`), over HTTP."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeOrganization
from tests.shop import API, add_feature, add_plan, done, hard_limit, overage, refused, subscribe, track

CASES = json.loads((Path(__file__).parents[2] / "contract/cases/worked.json").read_text())


BATCHES = [each for each in CASES if each["kind"] == "batch"]
FREE_PLANS = [each for each in CASES if each["kind"] == "free_plan"]


def name_of(case: dict[str, Any]) -> str:
    return str(case["id"])


@pytest.mark.parametrize("case", BATCHES, ids=name_of)
def test_what_a_batch_leaves_behind(case: dict[str, Any], make_organization: MakeOrganization) -> None:
    shop = make_organization()
    add_feature(shop, "api_calls")
    add_feature(shop, "storage_gb")
    add_plan(shop, promises={"api_calls": overage("0.01"), "storage_gb": overage("0.10")})
    for customer in ("user_123", "user_456"):
        subscribe(shop, customer)
    sent = [
        f'{{"customerId":"{customer}","featureCode":"{feature}","value":{value},"eventId":{json.dumps(key)}}}'
        for customer, feature, value, key in case["given"]
    ]
    answer = done(shop.http.post(f"{API}/usage/events/batch", content=f'{{"events":[{",".join(sent)}]}}'))
    assert {str(each["index"]): each["code"] for each in answer["failed"]} == case["expected"]["refused"]
    for place, total in case["expected"]["totals"].items():
        customer, feature = place.split(".")
        access = done(shop.http.get(f"{API}/feature-access/{feature}", params={"customerId": customer}))
        assert Decimal(str(access["consumption"]["unitsUsed"])) == Decimal(total)


@pytest.mark.parametrize("case", FREE_PLANS, ids=name_of)
def test_a_free_plan_blocks_at_its_limit(case: dict[str, Any], make_organization: MakeOrganization) -> None:
    shop, given = make_organization(), case["given"]
    add_feature(shop)
    add_plan(shop, "free", price=None, promises={"api_calls": hard_limit(int(given["included"]))})
    subscribe(shop, "ada", "free")
    assert track(shop, value=int(given["used"])).status_code == 201
    refused(track(shop, value=int(given["track"])), 402, case["expected"])
