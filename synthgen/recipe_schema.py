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


def json_schema() -> dict[str, Json]:
    """The JSON schema of a recipe, for editors: what `recipe.schema.json` beside this file holds."""
    schema = Recipe.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    for name, shorthand in _SHORTHAND.items():
        definitions[f"{name}Mapping"] = definitions[name]
        definitions[name] = {"anyOf": [{"$ref": f"#/$defs/{name}Mapping"}, {"type": shorthand}]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "synthgen recipe"
    return schema
