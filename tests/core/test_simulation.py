"""Laws of simulations: sums are sums of their parts, the same terms change nothing, everybody is counted once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.adjustments import Usage, rate_period
from tallystick.core.catalog import Stretch, Terms, stretches
from tallystick.core.invoicing import in_money
from tallystick.core.pricing import Flat, Graduated, Package, PerUnit, Tier, Volume
from tallystick.core.simulation import (
    NOTHING,
    Account,
    Beside,
    Compared,
    Cost,
    Outcome,
    Part,
    added,
    compare,
    ranked,
    show_account,
    show_total,
    totals,
    whole,
)
from tallystick.core.supposing import bases_begun, overridden
from tallystick.core.times import Anchor, Period, local_day, period
from tests.core.offers import terms
from tests.literals import D, P, U, at

FEATURES = [U(number) for number in range(1, 4)]
CODES = {feature: f"feature_{number}" for number, feature in enumerate(FEATURES)}
APRIL = P("2026-04-01/2026-05-01")

costs = st.builds(
    Cost, st.integers(-(10**12), 10**12), st.integers(-(10**30), 10**30).map(lambda n: D(n).scaleb(-24))
)
parts = st.dictionaries(st.sampled_from([*Beside, *FEATURES]), st.builds(Compared, costs, costs))
people = st.lists(
    st.tuples(st.sampled_from(["USD", "EUR", "JPY"]), st.lists(st.tuples(parts, st.booleans()), min_size=1, max_size=4)),
    max_size=8,
)  # fmt: skip


def accounts_of(
    lived: Sequence[tuple[str, Sequence[tuple[dict[Part, Compared], bool]]]],
) -> list[Account]:
    found = []
    for number, (currency, periods) in enumerate(lived):
        account = Account(U(100 + number), f"customer_{number}", currency)
        for each, is_open in periods:
            account.add(each, is_open=is_open)
        found.append(account)
    return found


@given(people)
def test_totals_are_the_sums_of_the_customers_and_everybody_is_counted_once(lived: list) -> None:  # type: ignore[type-arg]
    accounts = accounts_of(lived)
    found = totals(accounts)
    assert [each.currency for each in found] == sorted({each.currency for each in accounts})
    for total in found:
        held = [each for each in accounts if each.currency == total.currency]
        assert total.customers == len(held) == total.winners + total.losers + total.same
        assert total.total == sum((each.total for each in held), Compared())
        assert whole(total.parts).difference == sum((each.total.difference for each in held), NOTHING)
        assert total.periods == sum(each.periods for each in held)
        assert total.open_periods == sum(each.open_periods for each in held) <= total.periods
        outcomes = Counter(each.total.outcome for each in held)
        assert (total.winners, total.losers, total.same) == tuple(
            outcomes[each] for each in (Outcome.PAYS_LESS, Outcome.PAYS_MORE, Outcome.SAME)
        )


@given(people)
def test_an_account_is_the_sum_of_its_periods_part_by_part(lived: list) -> None:  # type: ignore[type-arg]
    for account, (_, periods) in zip(accounts_of(lived), lived, strict=True):
        assert account.total == sum((whole(each) for each, _ in periods), Compared())
        for part in (*Beside, *FEATURES):
            expected = sum((each.get(part, Compared()) for each, _ in periods), Compared())
            assert account.parts.get(part, Compared()) == expected


@given(people)
def test_what_is_shown_adds_up(lived: list) -> None:  # type: ignore[type-arg]
    accounts = accounts_of(lived)
    shown = [show_account(each, CODES) for each in accounts] + [
        show_total(each, CODES) for each in totals(accounts)
    ]
    for each in shown:
        said = [*each["features"], *(each[part] for part in Beside if each[part])]
        for name in ("oldAmount", "newAmount", "difference"):
            assert each[name] == sum(part[name] for part in said)
            assert D(each[f"{name}Decimal"]) == sum((D(part[f"{name}Decimal"]) for part in said), D(0))
        assert each["newAmount"] - each["oldAmount"] == each["difference"]


@given(people)
def test_who_saves_most_comes_first(lived: list) -> None:  # type: ignore[type-arg]
    accounts = accounts_of(lived)
    differences = [each.total.difference.minor for each in ranked(accounts)]
    assert differences == sorted(differences)
    assert len(differences) == len(accounts)


@given(st.dictionaries(st.sampled_from([*Beside, *FEATURES]), costs))
def test_the_same_costs_on_both_sides_differ_in_nothing(same: dict[Part, Cost]) -> None:
    told = compare(same, same)
    assert whole(told).difference == NOTHING
    assert whole(told).outcome is Outcome.SAME
    assert {each.outcome for each in told.values()} <= {Outcome.SAME}


@given(st.dictionaries(st.sampled_from(FEATURES), costs), st.dictionaries(st.sampled_from(FEATURES), costs))
def test_the_other_way_round_who_saved_pays_more(old: dict[Part, Cost], new: dict[Part, Cost]) -> None:
    there, back = whole(compare(old, new)), whole(compare(new, old))
    assert there.difference.minor == -back.difference.minor
    assert there.difference.exact == -back.difference.exact
    assert whole(added(compare(old, new), compare(new, old))).outcome is Outcome.SAME


def test_what_no_line_shows_makes_nobody_pay_more() -> None:
    told = Compared(Cost(1, D("0.01")), Cost(1, D("0.0149")))
    assert (told.outcome, told.difference.exact) == (Outcome.SAME, D("0.0049"))


# Terms put otherwise --------------------------------------------------------------------------------------

amounts = st.integers(0, 10**6).map(lambda digits: D(digits).scaleb(-4))
prices = st.one_of(
    st.builds(PerUnit, amounts),
    st.builds(Flat, amounts),
    st.builds(
        lambda unit, flat: Graduated((Tier(D(50), unit, flat), Tier(None, flat, unit))), amounts, amounts
    ),
    st.builds(lambda unit, flat: Volume((Tier(D(50), unit, flat), Tier(None, flat, unit))), amounts, amounts),
    st.builds(lambda size, amount: Package(D(size), amount), st.integers(1, 99), amounts),
)
promises = st.builds(
    lambda price, included, unlimited, charged, low, more: replace(
        terms(str(included)),
        price=price,
        unlimited=unlimited,
        overage_enabled=charged,
        minimum=low if charged else None,
        maximum=low + more if charged else None,
    ),
    prices,
    amounts,
    st.booleans(),
    st.booleans(),
    amounts,
    amounts,
)


@st.composite
def a_history(draw: st.DrawFn) -> list[Terms]:
    """What a plan promised before April and in its course, some of it from an instant of its own."""
    versions = [draw(promises)]
    for number in range(2, 2 + draw(st.integers(0, 3))):
        begins = APRIL.start + timedelta(hours=draw(st.integers(-300, 719)))
        pinned = draw(st.booleans())
        again = versions[-1] if draw(st.booleans()) else draw(promises)
        versions.append(replace(again, id=U(1000 + number), version=number, valid_from=begins, pinned=pinned))
    return versions


def rated(lived: Sequence[Stretch], used: Decimal) -> tuple[int, Decimal]:
    """As if so much were used an hour."""
    told = rate_period(
        [(span, each, Usage(used * ((span.end - APRIL.start) // timedelta(hours=1)))) for span, each in lived]
    )
    return in_money(told, "USD"), told.exact


@given(a_history(), amounts)
def test_terms_that_are_put_as_they_were_cost_what_they_did(versions: list[Terms], used: Decimal) -> None:
    lived = stretches(versions, APRIL)
    again = overridden(lived, APRIL, lambda each: each, versions[-1])
    assert again == lived
    assert rated(again, used) == rated(lived, used)


@given(a_history(), promises, amounts)
def test_terms_put_otherwise_as_a_whole_cost_what_they_would_have_from_the_beginning(
    versions: list[Terms], instead: Terms, used: Decimal
) -> None:
    """Where versions of one price followed each other they stay apart, as their lines did; in money they agree."""
    lived = stretches(versions, APRIL)

    def revise(each: Terms) -> Terms:
        return replace(instead, id=each.id, version=each.version)

    again = overridden(lived, APRIL, revise, versions[-1])
    assert again[0][0].start == APRIL.start and again[-1][0].end == APRIL.end
    assert rated(again, used)[1] == rated([(APRIL, instead)], used)[1]
    if len(again) == 1:
        assert rated(again, used) == rated([(APRIL, instead)], used)


def test_a_feature_the_plan_did_not_have_is_had_for_the_whole_period() -> None:
    promise = terms("5")
    assert overridden((), APRIL, lambda each: replace(each, unlimited=True), promise) == (
        (APRIL, replace(promise, unlimited=True)),
    )
    assert overridden((), APRIL, lambda each: each, replace(promise, enabled=False)) == ()


def test_stretches_that_only_the_price_told_apart_become_one_and_gaps_stay() -> None:
    cheap, dear = terms(overage=True, unit="1"), terms(overage=True, unit="2", version=2)
    first, second, third = P("2026-04-01/2026-04-10"), P("2026-04-10/2026-04-20"), P("2026-04-25/2026-05-01")
    lived = ((first, cheap), (second, dear), (third, cheap))
    told = overridden(lived, APRIL, lambda each: replace(each, price=Flat(D(3))), cheap)
    assert [span for span, _ in told] == [Period(first.start, second.end), third]


# Bases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "span", "begun"),
    [
        ("monthly", "2026-01-31T10:00/2026-02-28", 1),  # the anchor's own
        ("monthly", "2026-01-31T10:00:00.000001/2026-02-28", 0),
        ("monthly", "2026-02-28/2026-03-31", 1),
        ("monthly", "2026-02-28/2026-03-31T00:00:00.000001", 2),
        ("quarterly", "2026-02-28/2026-04-30", 0),
        ("quarterly", "2026-04-30/2026-05-31", 1),
        ("yearly", "2026-01-31T10:00/2027-01-31T00:00:01", 2),
        ("weekly", "2026-01-31T10:00/2026-02-28", 4),
        ("one_time", "2026-01-31T10:00/2026-02-28", 1),
        ("one_time", "2026-02-28/2026-12-31", 0),
    ],
)
def test_a_base_is_charged_where_its_billing_period_begins(interval: str, span: str, begun: int) -> None:
    start = at("2026-01-31T10:00")
    assert bases_begun(Anchor(start, start.date(), interval == "weekly"), interval, P(span), "UTC") == begun


@given(
    st.integers(0, 3_000_000),
    st.sampled_from(["UTC", "Europe/Paris", "Asia/Kathmandu", "America/Los_Angeles"]),
    st.sampled_from(["weekly", "monthly", "quarterly", "semiannual", "yearly"]),
    st.integers(0, 40),
)
def test_every_usage_period_of_its_own_length_begins_one_billing_period_in_so_many(
    minutes: int, zone: str, interval: str, index: int
) -> None:
    began = at("2020-01-01") + timedelta(minutes=minutes)
    anchor = Anchor(began, local_day(began, zone), interval == "weekly")
    months = {"weekly": 1, "monthly": 1, "quarterly": 3, "semiannual": 6, "yearly": 12}[interval]
    assert bases_begun(anchor, interval, period(anchor, index, zone), zone) == (index % months == 0)
