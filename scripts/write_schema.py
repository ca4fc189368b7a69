"""Write the JSON schemas in synthgen/ from the models that they describe."""

from __future__ import annotations

import json
from pathlib import Path

from synthgen import recipe_schema
from synthgen.provenance import schema

folder = Path(recipe_schema.__file__).parent
for name, described in {"recipe": recipe_schema.json_schema(), "provenance": schema.json_schema()}.items():
    target = folder / f"{name}.schema.json"
    target.write_text(json.dumps(described, indent=2) + "\n")
    print(f"wrote {target.name}")
