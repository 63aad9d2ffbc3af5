"""The OpenAPI document, made from the table of operations; `contract/openapi.json` is its checked-in copy."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from tallystick import __version__
from tallystick.api import cloud_events, events, versions
from tallystick.api.operations import Operation
from tallystick.api.routes import CLOUD_EVENTS, OPERATIONS, PREFIXES, TRACK_BATCH, TRACK_BULK, TRACK_STREAM
from tallystick.api.stream_route import NDJSON
from tallystick.core import limits
from tallystick.core.cloud_events import SPEC_VERSION
from tallystick.core.tokens import COUNT_FIELDS
from tallystick.core.windows import Window
from tallystick.errors import CODES

_ALWAYS = ("unauthorized", "forbidden", "rate_limited", "internal_error", "unavailable")
_ON_BODY = ("invalid_json", "validation_error", "payload_too_large")
_ON_KEY = ("idempotency_key_mismatch", "idempotency_in_progress")
_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
_INGEST = (
    "customer_not_found",
    "feature_not_found",
    "no_active_subscription",
    "feature_not_in_plan",
    "feature_disabled",
    "duplicate",
    "included_limit_reached",
    "insufficient_credits",
    "insufficient_balance",
    "pricing_mode_mismatch",
)


def document() -> dict[str, Any]:
    kinds = [
        each for operation in OPERATIONS for each in (operation.body, operation.returns) if each is not None
    ]
    schemas, components = msgspec.json.schema_components(
        [*kinds, events.UsageEventOut], ref_template="#/components/schemas/{name}"
    )
    by_kind = dict(zip(map(str, [*kinds, events.UsageEventOut]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(PREFIXES[0] + operation.path, {})[operation.method.lower()] = _describe(
            operation, by_kind
        )
    event = by_kind[str(events.UsageEventOut)]
    paths.setdefault(f"{PREFIXES[0]}/usage/events", {})["post"] = _track(event)
    paths[f"{PREFIXES[0]}{TRACK_BATCH}"] = {"post": _track_many("usage.trackBatch", "TrackUsageBatch", "100")}
    paths[f"{PREFIXES[0]}{TRACK_BULK}"] = {"post": _track_many("usage.trackBulk", "TrackUsageBulk", "10,000")}
    paths[f"{PREFIXES[0]}{TRACK_STREAM}"] = {"post": _track_stream()}
    paths[f"{PREFIXES[0]}{CLOUD_EVENTS}"] = {"post": _track_cloud_events()}
    components.update(_usage_schemas(event) | _cloud_event_schemas())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallystick",
            "version": __version__,
            "summary": "Usage-based billing that counts each event once and proves every line.",
            "description": (
                f"Shapes of API version {versions.CURRENT}. Older versions are chosen with the `commet-version` "
                "header. Amounts are integers of minor units; rates are integers with 10000 = 1.00; "
                "fields that end in `Decimal` are exact decimals as strings."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}, {"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted({**components, "Error": _error_schema()}.items())),
            "responses": {"RateLimited": _rate_limited()},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _describe(operation: Operation, by_kind: dict[str, Any]) -> dict[str, Any]:
    errors = [*operation.errors, *_ALWAYS]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in operation.requires, "schema": _query_schema(name)}
        for name in operation.query
    ]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
    }
    if operation.query:
        errors.append("validation_error")
    if operation.method in ("POST", "PUT", "PATCH"):
        parameters.append(_idempotency())
        errors += [*_ON_BODY, *_ON_KEY]
    elif operation.body is not None:
        errors += _ON_BODY
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_kind[str(operation.body)]}},
        }
    if parameters:
        described["parameters"] = parameters
    success = {
        "description": "Done",
        "content": {"application/json": {"schema": by_kind[str(operation.returns)]}},
    }
    described["responses"] = {str(operation.status): success, **_error_responses(errors)}
    if operation.status == 201:
        described["responses"]["200"] = {**success, "description": "It was there already"}
    return described


def _query_schema(name: str) -> dict[str, Any]:
    if name == "limit":
        return {"type": "integer", "minimum": 1, "maximum": limits.PAGE_SIZE_MAX, "default": limits.PAGE_SIZE}
    if name == "window":
        return {"type": "string", "enum": [each.value for each in Window]}
    if name in ("start", "end"):
        return {"type": "string", "format": "date-time"}
    return {"type": "boolean"} if name == "includePrivate" else {"type": "string"}


def _idempotency() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Repeating a request with the same key within 24 hours answers as the first time did.",
        "schema": {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX},
    }


def _error_responses(codes: list[str]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in sorted(set(codes)):
        by_status.setdefault(CODES[code].status, []).append(code)
    return {
        str(status): {"description": ", ".join(f"`{code}`" for code in group)}
        | ({"$ref": "#/components/responses/RateLimited"} if status == 429 else _ERROR)
        for status, group in sorted(by_status.items())
    }


def _rate_limited() -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 0}
    headers = {
        "Retry-After": "Seconds after which a request is let through again",
        "RateLimit-Limit": "Requests a key may send at once",
        "RateLimit-Remaining": "Requests it may send now",
        "RateLimit-Reset": "Seconds until it may send all of them at once again",
    }
    return {
        "description": "This API key called too often",
        "headers": {name: {"description": says, "schema": whole} for name, says in headers.items()},
        **_ERROR,
    }


def _error_schema() -> dict[str, Any]:
    inner = {
        "type": "object",
        "required": ["type", "code", "message"],
        "properties": {
            "type": {"type": "string", "enum": sorted({kind.type for kind in CODES.values()})},
            "code": {"type": "string", "enum": sorted(CODES)},
            "message": {"type": "string"},
            "param": {"type": ["string", "null"], "description": "The field that is wrong"},
            "details": {"description": "Facts: a list of {field, message} for validation errors"},
            "doc_url": {"type": "string"},
        },
    }
    return {
        "type": "object",
        "required": ["success", "error", "code", "message"],
        "properties": {
            "success": {"const": False},
            "error": inner,
            "code": {"type": "string"},
            "message": {"type": "string"},
            "details": {},
        },
    }


def _tokens(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": limits.TOKENS_PER_EVENT_MAX}
    return found | {"description": "Part of the input"} if name.startswith("cache") else found


def _usage_schemas(event: Any) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": limits.CUSTOMER_REFERENCE_CHARS_MAX}
    track = {
        "type": "object",
        "required": ["customerId", "featureCode"],
        "properties": {
            "customerId": {**text, "description": "Public id (cus_…) or your own"},
            "featureCode": {"type": "string", "pattern": "^[a-z0-9_]+$", "maxLength": limits.CODE_CHARS_MAX},
            "value": {"type": "number", "minimum": 0, "default": 1},
            "eventId": {
                "type": "string",
                "minLength": 1,
                "maxLength": limits.EVENT_KEY_CHARS_MAX,
                "description": "Your key: an event with a key that was recorded for the customer is refused for ever",
            },
            "timestamp": {
                "type": "string",
                "format": "date-time",
                "description": "When it happened; default now",
            },
            "model": {
                "type": "string",
                "minLength": 1,
                "maxLength": limits.MODEL_CHARS_MAX,
                "description": "Of an AI call, with its tokens in place of a value",
            },
            **{name: _tokens(name) for name in COUNT_FIELDS},
            "properties": {
                "type": "array",
                "maxItems": limits.PROPERTIES_PER_EVENT_MAX,
                "items": {
                    "type": "object",
                    "required": ["property", "value"],
                    "properties": {"property": {"type": "string"}, "value": {"type": "string"}},
                },
            },
        },
    }
    failed = {
        "type": "object",
        "required": ["index", "error", "code", "data"],
        "properties": {
            "index": {"type": "integer"},
            "error": {"type": "string", "description": "The code, then the reason"},
            "code": {"type": "string", "enum": sorted(CODES)},
            "param": {"type": ["string", "null"]},
            "details": {},
            "data": {"description": "The event as it was sent"},
        },
    }
    return {
        "TrackUsage": track,
        "TrackUsageBatch": _many(limits.EVENTS_PER_BATCH_MAX),
        "TrackUsageBulk": _many(limits.EVENTS_PER_BULK_MAX),
        "UsageEventBatch": {
            "type": "object",
            "required": ["successful", "failed", "object", "livemode"],
            "properties": {
                "successful": {"type": "array", "items": event},
                "failed": {"type": "array", "items": failed},
                "object": {"const": "usage_event_batch"},
                "livemode": {"type": "boolean"},
            },
        },
        "UsageStreamLine": _stream_line(),
    }


def _stream_line() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "What became of a line; without `line`: why the stream was not read to its end",
        "properties": {
            "line": {"type": "integer", "minimum": 1, "description": "From 1; blank lines count"},
            "status": {"type": "integer", "description": "As if the event had come alone"},
            "id": {"type": "string"},
            "eventId": {"type": ["string", "null"]},
            "consumption": {"$ref": "#/components/schemas/Consumption"},
            "error": {
                "type": "object",
                "required": ["code", "message", "param", "details"],
                "properties": {
                    "code": {"type": "string", "enum": sorted(CODES)},
                    "message": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "details": {},
                },
            },
        },
    }


def _many(most: int) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["events"],
        "properties": {
            "events": {
                "type": "array",
                "minItems": 1,
                "maxItems": most,
                "items": {"$ref": "#/components/schemas/TrackUsage"},
            }
        },
    }


def _ingest(
    name: str, summary: str, request: str, answer: Any, status: str, errors: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["usage"],
        "parameters": [_idempotency()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{request}"}}},
        },
        "responses": {
            status: {"description": "Done", "content": {"application/json": {"schema": answer}}},
            **_error_responses([*errors, *_ON_BODY, *_ALWAYS]),
        },
    }


def _track(event: Any) -> dict[str, Any]:
    return _ingest(
        "usage.track",
        "Report one event; 201 means it is on disk and counted",
        "TrackUsage",
        event,
        "201",
        (*_INGEST, "model_not_found", "idempotency_key_mismatch"),
    )


def _track_many(name: str, request: str, most: str) -> dict[str, Any]:
    return _ingest(
        name,
        f"Report up to {most} events; each is judged alone",
        request,
        {"$ref": "#/components/schemas/UsageEventBatch"},
        "200",
        (),
    )


def _track_stream() -> dict[str, Any]:
    described = _ingest(
        "usage.trackStream",
        "Report any number of events, one a line; each is answered by a line as it is committed",
        "TrackUsage",
        {"$ref": "#/components/schemas/UsageStreamLine"},
        "200",
        (),
    )
    described["parameters"].append(
        {
            "name": "Content-Encoding",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["gzip", "identity"]},
        }
    )
    for spoken in (described["requestBody"], described["responses"]["200"]):
        spoken["content"] = {NDJSON: spoken["content"]["application/json"]}
    return described


def _track_cloud_events() -> dict[str, Any]:
    one, batch = ({"$ref": f"#/components/schemas/{name}"} for name in ("CloudEvent", "CloudEventBatch"))
    sent = {cloud_events.ONE: one, cloud_events.BATCH: batch, cloud_events.JSON: {"oneOf": [one, batch]}}
    return {
        "operationId": "usage.trackCloudEvents",
        "summary": "Report usage as CloudEvents 1.0: one, a batch of up to 10,000, or one in binary mode",
        "tags": ["usage"],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind, schema in sent.items()},
        },
        "responses": {
            "204": {"description": "All of it is on disk and counted, now or before"},
            **_error_responses([*_INGEST, *_ON_BODY, *_ALWAYS]),
        },
    }


def _cloud_event_schemas() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject"],
        "properties": {
            "specversion": {"const": SPEC_VERSION},
            "id": {**text, "description": "Unique with `source`: together they are the event's key"},
            "source": text,
            "type": {
                "type": "string",
                "pattern": "^[a-z0-9_]+$",
                "maxLength": limits.CODE_CHARS_MAX,
                "description": "The event code that meters listen to",
            },
            "subject": {
                **text,
                "maxLength": limits.CUSTOMER_REFERENCE_CHARS_MAX,
                "description": "The customer: public id (cus_…) or your own",
            },
            "time": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "When it happened; default now",
            },
            "data": {
                "type": ["object", "null"],
                "maxProperties": limits.PROPERTIES_PER_EVENT_MAX,
                "description": "Properties; a number in `value` is the event's value, else that is 1",
            },
        },
    }
    batch = {
        "type": "array",
        "maxItems": limits.EVENTS_PER_BULK_MAX,
        "items": {"$ref": "#/components/schemas/CloudEvent"},
    }
    return {"CloudEvent": event, "CloudEventBatch": batch}


def rendered() -> bytes:
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, help="fail when this file is not what the code says")
    parser.add_argument("--write", type=Path, help="write it")
    chosen = parser.parse_args()
    if chosen.write:
        chosen.write.write_bytes(rendered())
    if chosen.check and (not chosen.check.is_file() or chosen.check.read_bytes() != rendered()):
        sys.exit(f"{chosen.check} is not what the code says: run `make contract` and read the difference")


if __name__ == "__main__":
    main()
