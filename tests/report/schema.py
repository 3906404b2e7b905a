"""Where a value does not follow a JSON Schema: the part of the standard that ours uses."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list,
    "object": dict,
}  # fmt: skip


def violations(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> list[str]:
    """What does not fit, with its place."""
    if "$ref" in schema:
        return violations(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    if "anyOf" in schema:
        tries = [violations(value, item, root, where) for item in schema["anyOf"]]
        return [] if any(not found for found in tries) else tries[0]
    kind = schema["type"]
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: {value!r} is no {kind}"]
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r} is not {schema['const']!r}"]
    if kind == "array":
        return [v for i, item in enumerate(value) for v in violations(item, schema["items"], root, f"{where}[{i}]")]
    if kind != "object":
        return []
    if "properties" not in schema:
        extra = schema["additionalProperties"]
        return [v for key, item in value.items() for v in violations(item, extra, root, f"{where}.{key}")]
    wrong = [f"{where}: keys {set(value) ^ set(schema['required'])}"] if set(value) != set(schema["required"]) else []
    known = {key: item for key, item in schema["properties"].items() if key in value}
    return wrong + [v for key, item in known.items() for v in violations(value[key], item, root, f"{where}.{key}")]
