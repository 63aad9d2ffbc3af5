"""The JSON edge: decode, authenticate, call one flow or one read, encode.

Owns: the wire: spellings, versions, error shapes, pages, the OpenAPI document.
Does not own: rules or statements; a handler that decides something belongs in a flow.
Promises: a JSON body and an `x-request-id` on every answer; one table (`routes.py`) drives routing, permissions,
documentation and the tests that try every route.
"""
