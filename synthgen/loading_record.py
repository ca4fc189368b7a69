"""The record of a recipe: its templates and expressions checked."""

from __future__ import annotations

from synthgen.loading_checks import Checks
from synthgen.row import Messages, RowShape, Text, row_shape
from synthgen.yamlfile import did_you_mean


def load_shape(checks: Checks) -> RowShape:
    """How a record becomes a row."""
    record = checks.recipe.record
    known = {*checks.recipe.fields}
    if record.from_ is not None:
        checks.used.add(record.from_)
        if record.from_ not in known:
            hint = did_you_mean(record.from_, known)
            checks.wrong(("record", "from"), f"there is no field {record.from_!r}", hint)
    shape = row_shape(record)
    for name, column in shape.made.items():
        loc = (*checks.within, "record", name)
        if isinstance(column, Messages):
            for place, (role, template) in enumerate(column.turns):
                checks.template(checks.file, (*loc, place, role), template, known)
        elif isinstance(column, Text):
            checks.template(checks.file, loc, column.template, known)
        else:
            checks.expression(checks.file, (*loc, "value"), column.expression, known)
    return shape
