"""Write synthgen/recipe.schema.json from the models it describes."""

from __future__ import annotations

import json
from pathlib import Path

from synthgen import recipe

target = Path(recipe.__file__).with_name("recipe.schema.json")
target.write_text(json.dumps(recipe.json_schema(), indent=2) + "\n")
print(f"wrote {target.name}")
