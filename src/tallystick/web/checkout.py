"""The sandbox checkout: a card form that posts to its own address. The address is the secret (ruling 36)."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tallystick.errors import Problem
from tallystick.flows.collect_payment import Checkout, confirm_checkout, find_checkout, pay_checkout
from tallystick.providers.payments import Card, Challenge, Charged, Declined, Payments
from tallystick.store.db import Database
from tallystick.web import format as shown

_EXPIRY: Final = re.compile(r"\s*(\d{1,2})\s*/\s*(\d{2}|\d{4})\s*")
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True, slots=True)
class CheckoutPage:
    title: str
    organization: str
    plan: str
    price: str
    every: str
    error: str | None = None
    challenge: str | None = None


@dataclass(frozen=True, slots=True)
class NoticePage:
    title: str
    heading: str
    text: str


def routes(database: Database, provider: Payments, wall: Callable[[], datetime]) -> list[BaseRoute]:
    async def page(request: Request) -> Response:
        try:
            checkout = await find_checkout(database, token=request.path_params["token"])
        except Problem as problem:
            return _notice("Not found", problem.message, 404)
        if not checkout.is_open:
            return _done()
        return _form(checkout)

    async def pay(request: Request) -> Response:
        try:
            checkout = await find_checkout(database, token=request.path_params["token"])
        except Problem as problem:
            return _notice("Not found", problem.message, 404)
        if not checkout.is_open:
            return _success(checkout, request)
        now = checkout.organization.simulated_time or wall()
        async with request.form(max_files=0, max_fields=20) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
        answer: Charged | Declined | Challenge
        if fields.get("challenge"):
            answer = await confirm_checkout(
                database,
                provider,
                checkout,
                challenge=fields["challenge"],
                agreed=fields.get("authentication") == "complete",
                now=now,
            )
        else:
            card = _card(fields)
            if isinstance(card, str):
                return _form(checkout, error=card, status=402)
            answer = await pay_checkout(database, provider, checkout, card, now=now)
        if isinstance(answer, Challenge):
            return _form(checkout, challenge=answer.token)
        if isinstance(answer, Declined):
            return _form(checkout, error=answer.message, status=402)
        return _success(checkout, request)

    async def success(request: Request) -> Response:
        return _done()

    return [
        Route("/checkout/success", success, methods=["GET"]),
        Route("/checkout/{token}", page, methods=["GET"]),
        Route("/checkout/{token}", pay, methods=["POST"]),
    ]


def _card(fields: dict[str, str]) -> Card | str:
    """The card as typed, or what is wrong with it."""
    number = re.sub(r"[\s-]", "", fields.get("cardNumber", ""))
    if not number.isascii() or not number.isdecimal() or not 12 <= len(number) <= 19:
        return "The card number has 12 to 19 digits."
    expiry = _EXPIRY.fullmatch(fields.get("expiry", ""))
    if expiry is None or not 1 <= int(expiry[1]) <= 12:
        return "The expiry date is a month and a year, such as 12/34."
    cvc = fields.get("cvc", "").strip()
    if not cvc.isascii() or not cvc.isdecimal() or len(cvc) not in (3, 4):
        return "The security code has 3 or 4 digits."
    year = int(expiry[2])
    return Card(number, int(expiry[1]), year if year > 99 else 2000 + year, cvc)


def _form(
    checkout: Checkout, *, error: str | None = None, challenge: str | None = None, status: int = 200
) -> Response:
    page = CheckoutPage(
        title=f"Subscribe to {checkout.plan_name}",
        organization=checkout.organization.name,
        plan=checkout.plan_name,
        price=shown.money(checkout.amount_minor, checkout.subscription.currency),
        every=shown.every(checkout.billing_interval),
        error=error,
        challenge=challenge,
    )
    return _html("checkout.html", page, status)


def _success(checkout: Checkout, request: Request) -> Response:
    return RedirectResponse(checkout.subscription.success_url or "/checkout/success", status_code=303)


def _done() -> Response:
    return _notice("Thank you", "The payment went through and the subscription is active.", 200)


def _notice(heading: str, text: str, status: int) -> Response:
    return _html("notice.html", NoticePage(heading, heading, text), status)


def _html(template: str, page: CheckoutPage | NoticePage, status: int) -> Response:
    return HTMLResponse(
        _templates.get_template(template).render(asdict(page)),
        status_code=status,
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action *",
            "Referrer-Policy": "no-referrer",
        },
    )
