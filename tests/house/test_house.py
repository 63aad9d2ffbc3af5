"""What keeps the rooms as they are. Each failure says what to write instead."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tallystick.api import openapi
from tallystick.api.operations import Operation
from tallystick.api.routes import OPERATIONS
from tallystick.errors import CODES

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/tallystick").rglob("*.py"))
CORE = sorted((ROOT / "src/tallystick/core").rglob("*.py"))
CASES = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)

NO_FLOAT = "use Decimal (quantities, amounts) or int (minor units): a float cannot hold 0.1"
NO_CLOCK = "take `now` as an argument: the edge reads the clock once and passes it in"
NO_CHANCE = "take the id or the random bytes as an argument: the same arguments give the same answer"
NO_WAITING = "core computes and never waits: read before calling it, in a flow"
NO_OUTSIDE = (
    "core knows the standard library's pure parts only: files, network and environment belong to edges"
)

CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "perf_counter", "localtime", "gmtime"}
CHANCE = {"random", "secrets", "uuid1", "uuid4", "urandom", "getrandbits", "token_hex", "token_urlsafe"}
OUTSIDE = {"os", "io", "socket", "subprocess", "pathlib", "threading", "logging", "sqlite3", "http", "urllib"}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), short(path))


def broken_rules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where code of the pure room breaks a rule of its house, and what to write instead."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float()):
                yield node.lineno, NO_FLOAT
            case ast.Name(id="float") | ast.Attribute(attr="from_float"):
                yield node.lineno, NO_FLOAT
            case ast.Attribute(attr=name) if name in CLOCKS and isinstance(
                node.value, ast.Name | ast.Attribute
            ):
                yield node.lineno, NO_CLOCK
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in CHANCE:
                yield node.lineno, NO_CHANCE
            case ast.Import(names=names):
                yield from ((node.lineno, why) for each in names if (why := forbidden(each.name)))
            case ast.ImportFrom(module=str(module), names=names):
                if why := forbidden(module):
                    yield node.lineno, why
                if module == "time" or (module == "uuid" and {each.name for each in names} & CHANCE):
                    yield node.lineno, NO_CLOCK if module == "time" else NO_CHANCE
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, NO_WAITING
            case ast.Call(func=ast.Name(id="open" | "input" | "print")):
                yield node.lineno, NO_OUTSIDE


def forbidden(module: str) -> str | None:
    first = module.partition(".")[0]
    if first == "time":
        return NO_CLOCK
    if first in ("random", "secrets"):
        return NO_CHANCE
    if first in ("asyncio", "anyio", "concurrent"):
        return NO_WAITING
    return NO_OUTSIDE if first in OUTSIDE else None


@pytest.mark.parametrize("path", CORE, ids=short)
def test_the_pure_room_is_pure(path: Path) -> None:
    assert [f"{short(path)}:{line}: {instead}" for line, instead in broken_rules(parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "instead"),
    [
        ("x = 0.5", NO_FLOAT),
        ("x = float('0.5')", NO_FLOAT),
        ("def f(x: float): ...", NO_FLOAT),
        ("at = datetime.now(UTC)", NO_CLOCK),
        ("at = datetime.datetime.now()", NO_CLOCK),
        ("import time", NO_CLOCK),
        ("from time import monotonic", NO_CLOCK),
        ("import random", NO_CHANCE),
        ("from uuid import uuid4", NO_CHANCE),
        ("id = uuid.uuid4()", NO_CHANCE),
        ("async def f(): ...", NO_WAITING),
        ("import asyncio", NO_WAITING),
        ("import os", NO_OUTSIDE),
        ("text = open('x').read()", NO_OUTSIDE),
    ],
)
def test_the_guard_sees(code: str, instead: str) -> None:
    assert instead in {each for _, each in broken_rules(ast.parse(code))}


def test_rooms_import_inwards_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, (
        f"a room imports outwards: move the code, not the rule\n{run.stdout}{run.stderr}"
    )


@pytest.mark.parametrize("path", [*SOURCES, *CASES], ids=short)
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = parsed(path)
    assert not tree.body or ast.get_docstring(tree), (
        f"{short(path)}: begin it with a docstring: what it is, in a sentence"
    )


def name_of(operation: Operation) -> str:
    return operation.name


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_an_operation_holds_together(operation: Operation) -> None:
    if operation.body is not None:
        msgspec.json.Decoder(operation.body)
        assert issubclass(operation.body, msgspec.Struct)
    msgspec.json.Decoder(operation.returns)
    unknown = [code for code in operation.errors if code not in CODES]
    assert not unknown, f"{operation.name}: add {unknown} to errors.CODES, with type and status"
    assert operation.method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    assert operation.path.startswith("/")
    assert not operation.path.endswith("/")
    assert operation.method != "GET" or operation.body is None, f"{operation.name}: a GET has no body"


def test_operations_have_names_and_routes_of_their_own() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    routes = [
        (method, path)
        for operation in OPERATIONS
        for method, path in ((operation.method, operation.path), *operation.also)
    ]
    assert sorted(route for route in set(routes) if routes.count(route) > 1) == []


def test_error_codes_have_a_type_a_status_and_a_sentence() -> None:
    for code, kind in CODES.items():
        assert code.replace("_", "").isalpha(), code
        assert 400 <= kind.status <= 503, code
        assert kind.type.endswith("_error"), code
        assert kind.message.endswith("."), f"{code}: the message is a sentence"


def test_the_document_of_the_api_describes_every_operation() -> None:
    described = {
        (method.upper(), path) for path, methods in openapi.document()["paths"].items() for method in methods
    }
    assert {(each.method, f"/api/v1{each.path}") for each in OPERATIONS} <= described
