"""The pure room: what usage means and what it costs.

Owns: ids, money, times, events, meters, plans, prices, invoices, proofs, as values and functions of values.
Does not own: data, clocks, randomness, the network; it imports the standard library and `errors`, nothing else.
Promises: the same arguments give the same answer, to the last digit, years later. No float is ever born here,
and no Decimal is ever rounded except in `money`, at an invoice line, or upwards for the tokens of an AI call:
the context below is wide enough for every product and sum our limits allow (20+12 digits × 12+12 digits,
summed), and a test proves it.
"""

import decimal

EXACT = decimal.Context(prec=120, rounding=decimal.ROUND_HALF_UP)
decimal.DefaultContext.prec = EXACT.prec
decimal.DefaultContext.rounding = EXACT.rounding
decimal.setcontext(EXACT.copy())
