"""Check a JSON value against declared types: what is missing, null, or of another kind."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),  # JSON has one kind of number
}


@dataclass(frozen=True, slots=True)
class Field:
    wire_name: str
    type: str
    required: bool
    nullable: bool


@dataclass(frozen=True, slots=True)
class Union:
    discriminator: str
    variants: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    models: Mapping[str, Sequence[Field]]
    unions: Mapping[str, Union]
    enums: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, declared: Mapping[str, Any]) -> "Catalogue":
        return cls(
            models={
                name: [Field(**field) for field in fields] for name, fields in declared["models"].items()
            },
            unions={name: Union(**union) for name, union in declared["unions"].items()},
            enums=declared["enums"],
        )

    def faults(self, value: object, expected: str, at: str = "$") -> Iterator[str]:
        """Every way in which `value` is not an `expected`, a type as the package writes it."""
        return self._faults(value, ast.parse(expected, mode="eval").body, at)

    def _faults(self, value: object, expected: ast.expr, at: str) -> Iterator[str]:
        match expected:
            case ast.BinOp(left=left, right=ast.Constant(value=None)):
                if value is not None:
                    yield from self._faults(value, left, at)
            case ast.Subscript(value=ast.Name(id="Literal"), slice=allowed):
                yield from literal_faults(value, ast.literal_eval(allowed), at)
            case ast.Subscript(value=ast.Name(id="list"), slice=item):
                if not isinstance(value, list):
                    yield wrong(at, "a list", value)
                    return
                for index, element in enumerate(value):
                    yield from self._faults(element, item, f"{at}[{index}]")
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, item])):
                if not isinstance(value, dict):
                    yield wrong(at, "an object", value)
                    return
                for key, element in value.items():
                    yield from self._faults(element, item, f"{at}.{key}")
            case ast.Name(id=name):
                yield from self._named_faults(value, name, at)
            case _:
                raise NotImplementedError(ast.unparse(expected))

    def _named_faults(self, value: object, name: str, at: str) -> Iterator[str]:
        if name == "Any":
            return
        if name in PLAIN:
            if not isinstance(value, PLAIN[name]) or (isinstance(value, bool) and name != "bool"):
                yield wrong(at, name, value)
        elif name in self.enums:
            if value not in self.enums[name]:
                yield wrong(at, f"one of {', '.join(self.enums[name])}", value)
        elif not isinstance(value, dict):
            yield wrong(at, name, value)
        elif name in self.unions:
            union = self.unions[name]
            variant = union.variants.get(str(value.get(union.discriminator)))
            if variant is None:
                yield wrong(f"{at}.{union.discriminator}", f"one of {', '.join(union.variants)}", value)
            else:
                yield from self._named_faults(value, variant, at)
        else:
            for field in self.models[name]:
                yield from self._field_faults(value, field, f"{at}.{field.wire_name}")

    def _field_faults(self, model: Mapping[str, object], field: Field, at: str) -> Iterator[str]:
        if field.wire_name not in model:
            if field.required:
                yield f"{at}: missing"
        elif model[field.wire_name] is None:
            if not field.nullable:
                yield f"{at}: null, yet {field.type} is never null"
        else:
            yield from self.faults(model[field.wire_name], field.type, at)


def literal_faults(value: object, allowed: object, at: str) -> Iterator[str]:
    choices = allowed if isinstance(allowed, tuple) else (allowed,)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        yield wrong(at, " or ".join(map(repr, choices)), value)


def wrong(at: str, expected: str, value: object) -> str:
    return f"{at}: expected {expected}, got {value!r}"
