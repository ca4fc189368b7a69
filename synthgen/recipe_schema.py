"""The JSON schema of a recipe, for editors."""

from __future__ import annotations

from synthgen.recipe import Recipe
from synthgen.recipe_parts import Json

_SHORTHAND = {
    "ModelRef": "string",
    "ValuesSeed": "array",
    "FilterUse": "null",
    "Grow": "string",
    "Voice": "string",
}


def _refuse_null(said: dict[str, Json]) -> None:
    """A key is left out, and never null, but for the bounds of filters."""
    kinds = [kind for kind in said.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) < len(said.get("anyOf", [])):
        del said["anyOf"]
        if said.get("default", "") is None:
            del said["default"]
        said.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def json_schema() -> dict[str, Json]:
    """The JSON schema of a recipe, for editors: what `recipe.schema.json` beside this file holds."""
    schema = Recipe.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    for part in (schema, *definitions.values()):
        for key, said in part.get("properties", {}).items():
            if part.get("title") != "FilterUse" or key not in ("min", "max"):
                _refuse_null(said)
    for name, shorthand in _SHORTHAND.items():
        definitions[f"{name}Mapping"] = definitions[name]
        definitions[name] = {"anyOf": [{"$ref": f"#/$defs/{name}Mapping"}, {"type": shorthand}]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "synthgen recipe"
    return schema
