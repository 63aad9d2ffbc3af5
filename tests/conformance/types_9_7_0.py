"""Print the shapes that commet-sdk 9.7.0 declares, as one JSON document.

Its dataclasses say each field's wire name, whether it is required, and its type. They cannot say
whether a required literal, enum or object may be null (each is hinted `… | None = None`); the
`docs/schemas.md` inside the same package can.
"""

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

HEADING = re.compile(r"^### (\w+)$")
FIELD = re.compile(r"^- `(\w+)` \(`(.+?)`, (?:required|optional)\)")


def main() -> None:
    package: Any = importlib.import_module("commet")
    types: Any = importlib.import_module("commet.types")
    documented = documented_types(Path(package.__file__).parent / "docs" / "schemas.md")
    models = {
        name: [declared(field, documented[name][field.name]) for field in fields(model)]
        for name, model in types._DATACLASS_TYPES.items()
        if name in documented
    }
    unions = {
        name: {
            "discriminator": discriminator,
            "variants": {value: model.__name__ for value, model in variants.items()},
        }
        for name, (discriminator, variants, _) in types._UNION_TYPES.items()
    }
    enums = {name: [member.value for member in enum] for name, enum in types._ENUM_TYPES.items()}
    print(json.dumps({"models": models, "unions": unions, "enums": enums}))


def declared(field: Any, documented_type: str) -> dict[str, Any]:
    return {
        "wire_name": field.metadata["wire_name"],
        "required": field.metadata["required"],
        "type": field.type.removesuffix(" | None"),
        "nullable": documented_type.endswith("| null"),
    }


def documented_types(page: Path) -> dict[str, dict[str, str]]:
    models: dict[str, dict[str, str]] = {}
    model = ""
    for line in page.read_text().splitlines():
        if heading := HEADING.match(line):
            model = heading[1]
            models[model] = {}
        elif field := FIELD.match(line):
            models[model][field[1]] = field[2]
    return models


if __name__ == "__main__":
    main()
