"""The API reference as one page, made from the OpenAPI document: no script, no outside resource."""

from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f1a14;background:#fbf8f2}
h2{margin-top:2.5rem;border-bottom:1px solid #e3dac8;text-transform:capitalize}
details{border:1px solid #e3dac8;border-radius:8px;background:#fff;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer;display:flex;gap:.75rem;align-items:baseline}
b{font:600 .8rem ui-monospace,monospace;min-width:3.6rem;color:#8a5a20}code{font-size:.9rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{border-bottom:1px solid #eee4d3;padding:.3rem .5rem;text-align:left;vertical-align:top}
small{opacity:.7}
@media (prefers-color-scheme:dark){body{color:#efe8dc;background:#17130e}details{background:#221c15;border-color:#3d3327}b{color:#d9a35c}td,th,h2{border-color:#3d3327}}
"""


def page(document: dict[str, Any]) -> str:
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(
                _operation(path, method, operation, document["components"]["schemas"])
            )
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(items)}" for tag, items in sorted(groups.items()))
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        "<p>Send your key as <code>x-api-key</code>. The machine-readable form is "
        f'<a href="/api/openapi.json">openapi.json</a>.</p>{body}</html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [
        _row(
            each["name"], each["in"], each["schema"], each.get("required", False), each.get("description", "")
        )
        for each in operation.get("parameters", ())
    ]
    for body in list(operation.get("requestBody", {}).get("content", {}).values())[:1]:
        schema = _resolve(body["schema"], schemas)
        rows += [
            _row(name, "body", field, name in schema.get("required", ()), field.get("description", ""))
            for name, field in schema.get("properties", {}).items()
        ]
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td colspan=3>{escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    fields = f"<table><tr><th>Field<th>In<th>Type<th></tr>{''.join(rows)}</table>" if rows else ""
    return (
        f"<details id={escape(operation['operationId'])!r}><summary><b>{method.upper()}</b><code>{escape(path)}</code>"
        f"<span>{escape(operation['summary'])}</span></summary>{fields}<table><tr><th>Status<th colspan=3>Answer</tr>"
        f"{answers}</table></details>"
    )


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = schemas[reference.rpartition("/")[2]] if reference else schema
    return found


def _row(name: str, place: str, schema: dict[str, Any], required: bool, description: str) -> str:
    return (
        f"<tr><td><code>{escape(name)}</code>{' *' if required else ''}</td><td>{place}</td>"
        f"<td>{escape(_kind(schema))}</td><td>{escape(description)}</td></tr>"
    )


def _kind(schema: dict[str, Any]) -> str:
    """What a field may be, in words."""
    if "const" in schema:
        return repr(schema["const"])
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named] if named else schema.get("anyOf", ())
    found = {
        each if isinstance(each, str) else str(each.get("type", each.get("$ref", "any"))).rpartition("/")[2]
        for each in kinds
    }
    return " or ".join(sorted(found)) or "any"
