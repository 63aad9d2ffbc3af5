"""Admission: may this event count, for what, and which refusal comes first."""

from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.admission import Admitted, admit, admit_adjustment, limit_reached, plainly
from tallystick.core.catalog import Catalogue
from tallystick.core.events import UsageEvent
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.meters import Measured
from tallystick.core.subscriptions import Standing, Status
from tallystick.core.tokens import TokenCharge
from tallystick.errors import Problem
from tests.core.offers import LONG_AGO, catalogue, life, meter, standing, terms
from tests.literals import D, P, at

NOW = at("2026-03-20T12:00Z")
OFFER = catalogue([terms("100", overage=True, unit="0.01")])
LIMITED = catalogue([terms("100")])


def event(value: str = "1", when: str | None = None, feature: str = "api_calls", **more: Any) -> UsageEvent:
    return UsageEvent(feature, "ada", D(value), occurred_at=at(when) if when else None, **more)


def judged(
    sent: UsageEvent,
    offer: Catalogue = OFFER,
    held: Standing | None = None,
    *,
    latest: datetime | None = None,
) -> Admitted:
    return admit(sent, offer, held or standing(life()), now=NOW, latest=latest or NOW, price_tokens=unpriced)


def unpriced(*_: Any) -> TokenCharge:
    raise AssertionError("nothing here is priced by the token")


def refusal(*args: Any, **more: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        judged(*args, **more)
    return raised.value


def test_an_event_without_a_time_happened_now() -> None:
    assert judged(event()).occurred_at == NOW


def test_it_counts_for_every_meter_that_listens() -> None:
    first, second = meter(version=1), meter("count", version=2)
    offer = Catalogue(
        features=OFFER.features,
        meters={"api_calls": (first, second)},
        versions={first.feature_id: ((LONG_AGO, first), (NOW, second))},
        plans=OFFER.plans,
    )
    assert judged(event("5"), offer).contributions == ((first, Measured(D(5))), (second, Measured(D(1))))


@pytest.mark.parametrize(
    ("ahead", "accepted"),
    [
        (timedelta(0), True),
        (timedelta(hours=1), True),  # clocks differ
        (timedelta(hours=1, microseconds=1), False),
        (timedelta(days=-365 * 30), True),  # any past time
    ],
)
def test_the_future_is_refused_beyond_an_hour(ahead: timedelta, accepted: bool) -> None:
    sent = UsageEvent("api_calls", "ada", occurred_at=NOW + ahead)
    if accepted:
        assert judged(sent).occurred_at == NOW + ahead
    else:
        problem = refusal(sent)
        assert (problem.code, problem.param) == ("validation_error", "timestamp")


def test_the_later_of_the_two_clocks_decides_what_the_future_is() -> None:
    sent = event(when="2026-11-01T00:00Z")
    assert refusal(sent).param == "timestamp"
    assert judged(sent, latest=at("2026-11-01T00:00Z")).occurred_at == at("2026-11-01T00:00Z")


def test_a_moment_before_the_first_period_is_stored_and_draws_on_no_limit() -> None:
    admitted = judged(event("1000", "2025-06-01T00:00Z"), LIMITED)
    assert admitted.contributions == ((meter(), Measured(D(1000))),)
    assert admitted.limits == ()


def test_the_beginning_of_time_is_past_too() -> None:
    for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
        assert judged(event(when="0001-01-01T00:00Z"), LIMITED, standing(life(zone=zone))).limits == ()


@pytest.mark.parametrize(
    ("offer", "feature", "code", "param"),
    [
        (OFFER, "unheard_of", "feature_not_found", "featureCode"),
        (catalogue(kind="boolean"), "api_calls", "validation_error", "featureCode"),
        (catalogue(measured=meter(event_code="requests")), "api_calls", "feature_not_found", "featureCode"),
        (catalogue(), "api_calls", "feature_not_in_plan", "featureCode"),
        (catalogue([terms(enabled=False)]), "api_calls", "feature_disabled", "featureCode"),
        (catalogue([terms(removed=True)]), "api_calls", "feature_not_in_plan", "featureCode"),
    ],
)
def test_what_is_refused_for_its_feature(offer: Catalogue, feature: str, code: str, param: str) -> None:
    problem = refusal(event(feature=feature), offer)
    assert (problem.code, problem.param) == (code, param)


def test_refusals_come_in_their_order() -> None:
    """The event itself, then the feature, then the subscription, then the plan."""
    nobody, far = standing(), "2030-01-01T00:00Z"
    assert refusal(event(when=far, feature="unheard_of"), catalogue(), nobody).param == "timestamp"
    assert refusal(event(feature="unheard_of"), catalogue(), nobody).code == "feature_not_found"
    assert refusal(event(), catalogue(), nobody).code == "no_active_subscription"
    assert refusal(event(), catalogue()).code == "feature_not_in_plan"


def test_after_the_end_only_what_happened_before_it_is_taken() -> None:
    gone = standing(None, life(end="2026-03-01T00:00Z", status=Status.CANCELED))
    assert judged(event(when="2026-02-28T23:59Z"), held=gone).occurred_at == at("2026-02-28T23:59Z")
    for late in ("2026-03-01T00:00Z", "2026-03-19T00:00Z", "2026-01-01T00:00Z", None):
        assert refusal(event(when=late), held=gone).code == "no_active_subscription"


def test_a_scheduled_end_counts_from_its_instant() -> None:
    ending = standing(life(end="2026-03-20T12:00Z"))  # which is now
    assert refusal(event(), held=ending).code == "no_active_subscription"
    assert judged(event(when="2026-03-20T11:59Z"), held=ending).contributions


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.TRIALING, Status.PAST_DUE])
def test_states_that_give_access_are_taken(status: Status) -> None:
    assert judged(event(), held=standing(life(status=status))).contributions


def test_a_hard_limit_is_that_of_the_period_in_which_it_happened() -> None:
    (february,) = judged(event("3", "2026-02-20T00:00Z"), LIMITED).limits
    assert february.period == P("2026-02-15/2026-03-15")
    assert (february.included, february.adds) == (D(100), Measured(D(3)))
    (current,) = judged(event("3"), LIMITED).limits
    assert current.period == P("2026-03-15/2026-04-15")


def test_a_hard_limit_follows_the_customers_zone() -> None:
    tokyo = standing(life("2026-01-15T10:00Z", zone="Asia/Tokyo"))
    (limit,) = judged(event("1", "2026-02-14T15:00Z"), LIMITED, tokyo).limits
    assert limit.period == P("2026-02-14T15:00Z/2026-03-14T15:00Z")


@pytest.mark.parametrize(
    "promise",
    [terms("100", overage=True), terms(unlimited=True), terms("0", overage=True)],
)
def test_without_a_hard_limit_nothing_is_drawn_on(promise: Any) -> None:
    assert judged(event("1E+19"), catalogue([promise])).limits == ()


def test_an_event_that_matches_no_filter_is_taken_and_counts_for_nothing() -> None:
    users = catalogue([terms("3")], measured=meter("unique"))
    nobody = judged(event(), users)
    assert (nobody.contributions, nobody.limits) == ((), ())
    (limit,) = judged(event(properties={"user_id": "ada"}), users).limits
    assert limit.adds.distinct is not None


def test_a_raised_limit_counts_in_the_running_period() -> None:
    raised = catalogue([terms("100"), terms("500", version=2, valid_from=at("2026-03-18"))])
    lowered = catalogue([terms("100"), terms("50", version=2, valid_from=at("2026-03-18"))])
    assert [limit.included for limit in judged(event(), raised).limits] == [D(500)]
    assert [limit.included for limit in judged(event(), lowered).limits] == [D(100)]


def test_an_adjustment_draws_on_the_limit_as_usage_does() -> None:
    taken = admit_adjustment(event("-4"), meter(), LIMITED, standing(life()), now=NOW)
    (limit,) = taken.limits
    assert limit.adds == Measured(D(-4))
    assert taken.contributions == ((meter(), Measured(D(-4))),)
    assert admit_adjustment(event("-4"), meter(), OFFER, standing(life()), now=NOW).limits == ()


@pytest.mark.parametrize(("used", "remaining"), [("0", "100"), ("99.5", "0.5"), ("100", "0"), ("120", "0")])
def test_a_refusal_for_a_limit_says_where_it_stands(used: str, remaining: str) -> None:
    (limit,) = judged(event(), LIMITED).limits
    problem = limit_reached(limit, Decimal(used))
    assert (problem.code, problem.kind.status, problem.param) == ("included_limit_reached", 402, "value")
    assert problem.details == {"current": D(used), "included": D(100), "remaining": D(remaining)}


@pytest.mark.parametrize("offer", [OFFER, LIMITED, catalogue([terms(unlimited=True)])])
@pytest.mark.parametrize("when", [None, "2026-02-20T00:00Z", "2025-06-01T00:00Z"])
def test_what_was_judged_before_changes_no_later_judgement(offer: Catalogue, when: str | None) -> None:
    held = standing(life(end="2026-03-25T00:00Z"))
    first = judged(event("5", when), offer, held)
    assert judged(event("5", when), offer, held) == first == judged(event("5", when), offer)
    assert refusal(event(when="2030-01-01T00:00Z"), offer, held).param == "timestamp"
    with pytest.raises(Problem, match="no_active_subscription"):
        admit(
            event(),
            offer,
            held,
            now=at("2026-03-25T00:00Z"),
            latest=at("2026-03-25T00:00Z"),
            price_tokens=unpriced,
        )


# In short ------------------------------------------------------------------------------------------------

MOMENTS = st.sampled_from(
    [
        at(f"2026-{edge}") + timedelta(microseconds=beside)
        for edge in ("01-15T10:00Z", "02-15T00:00Z", "03-15T00:00Z", "03-20T12:00Z", "04-15T00:00Z")
        for beside in (-1, 0, 1)
    ]
)
OFFERS = {
    "overage": OFFER,
    "a limit": LIMITED,
    "a later limit": catalogue(
        [terms("100", overage=True), terms("100", valid_from=at("2026-03-16T00:00Z"))]
    ),
    "switched off": catalogue([terms("100", enabled=False)]),
    "not promised": catalogue(),
    "counted": catalogue([terms("0", overage=True)], measured=meter("count")),
    "distinct": catalogue([terms("0", overage=True)], measured=meter("unique")),
}


@given(
    offer=st.sampled_from(sorted(OFFERS)),
    lives=st.sampled_from(
        [
            standing(life()),
            standing(life(end="2026-03-20T12:00Z")),
            standing(life("2026-03-15T00:00Z"), life("2026-01-15T10:00Z", "2026-03-15T00:00Z")),
            standing(None, life(end="2026-03-15T00:00Z")),
        ]
    ),
    seen=st.lists(st.tuples(MOMENTS, st.none() | MOMENTS), min_size=1, max_size=5),
)
def test_what_is_judged_in_short_is_judged_as_at_length(
    offer: str, lives: Standing, seen: list[tuple[datetime, datetime | None]]
) -> None:
    """Events of one customer as they come: what was found of the first must be true of all it is used for."""
    offered, held = OFFERS[offer], deepcopy(lives)
    for now, when in seen:
        sent = UsageEvent("api_calls", "ada", D("7"), occurred_at=when)
        occurred_at = when or now
        plain = plainly("api_calls", offered, held, now)
        try:
            found: Admitted | Problem = admit(sent, offered, held, now=now, latest=now, price_tokens=unpriced)
        except Problem as problem:
            found = problem
        if plain is None or not plain.since <= occurred_at < plain.until or occurred_at > now + FUTURE_MAX:
            continue
        ((listens,),) = offered.meters.values()
        measured = Measured(D(1) if plain.meters == ((listens.id, True),) else D("7"))
        assert found == Admitted(occurred_at, ((listens, measured),), ())


def test_what_is_usual_is_judged_in_short() -> None:
    held = standing(life())
    assert plainly("api_calls", OFFER, held, NOW) is None  # nobody has looked yet
    judged(event(), held=held)
    plain = plainly("api_calls", OFFER, held, NOW)
    assert plain is not None
    assert (plain.since, plain.until) == (at("2026-03-15T00:00Z"), at("2026-04-15T00:00Z"))
    judged(event(), LIMITED, other := standing(life()))
    assert plainly("api_calls", LIMITED, other, NOW) is None
