"""Generate the JSON Schema of latency tables, and the types that the field tables of FORMAT.md must state.

Both come from the models in hwnas/tables/schema.py. After a change there run ``python -m tools.format_page``, which
writes the schema; a test names the rows of the page that no longer match.
"""

from __future__ import annotations

import json
from typing import Any

from hwnas.tables.schema import SCHEMA_FILE, LatencyTable


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a table's file, including its hash."""
    schema = LatencyTable.model_json_schema()
    schema["properties"]["sha256"] = {"title": "Sha256", "type": "string", "pattern": "^[0-9a-f]{64}$"}
    # The reader requires these fields although the models have defaults for them.
    schema["required"] = ["format", "version", *schema["required"], "sha256"]
    schema["if"] = {"properties": {"version": {"const": 1}}}
    schema["then"] = {"properties": {"edge_costs": {"maxProperties": 0}}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


def field_rows() -> dict[str, dict[str, str]]:
    """Return the type of every field of every model in words: ``{"Entry": {"op": "text ≤ 200"}}``."""
    schema = json_schema()
    models = {"LatencyTable": schema, **schema["$defs"]}
    rows: dict[str, dict[str, str]] = {}
    for model, content in models.items():
        rows[model] = {}
        for name, field in content["properties"].items():
            optional = name not in content.get("required", [])
            rows[model][name] = type_words(field) + (f" (default {default_words(field)})" if optional else "")
    return rows


def type_words(field: dict[str, Any]) -> str:
    """Return the type of a field in words: ``integer ≥ 1``, ``list ≤ 100000 of Entry``."""
    if "$ref" in field:
        return field["$ref"].rsplit("/", 1)[1]
    if "anyOf" in field:
        return " or ".join(type_words(option) for option in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        most = f" ≤ {field['maxItems']}" if "maxItems" in field else ""
        return f"list{most} of {type_words(field['items'])}"
    if field["type"] == "object":
        return f"object, name to {type_words(field['additionalProperties'])}"
    if field["type"] == "string":
        return f"text ≤ {field['maxLength']}" if "maxLength" in field else f"text `{field['pattern']}`"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    bounds = ", ".join(f"{sign} {field[key]}" for key, sign in signs.items() if key in field)
    return f"{field['type']} {bounds}".rstrip()


def default_words(field: dict[str, Any]) -> str:
    """Return the default of a field as JSON."""
    return json.dumps(field["default"])


if __name__ == "__main__":
    from hwnas.files import write_text

    write_text(SCHEMA_FILE, schema_text())
