"""synthgen: recipes in, instruction-tuning datasets out, every row with its provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthgen.api import load as load
    from synthgen.api import run as run
    from synthgen.engines.embeddings import embed as embed
    from synthgen.measure import FieldName as FieldName
    from synthgen.measure import InputFile as InputFile
    from synthgen.measure import Measurement as Measurement
    from synthgen.measure import PromptFile as PromptFile
    from synthgen.measure import Question as Question
    from synthgen.measure import abstain as abstain
    from synthgen.measure import filter as filter
    from synthgen.models import default_model as default_model
    from synthgen.prompt_files import read_prompt as read_prompt
    from synthgen.reading import read_records as read_records
    from synthgen.record import Record as Record
    from synthgen.schema_checks import schema_validator as schema_validator

__version__ = "0.1.0"

_HOMES = {
    "filter": "synthgen.measure",
    "FieldName": "synthgen.measure",
    "InputFile": "synthgen.measure",
    "Measurement": "synthgen.measure",
    "PromptFile": "synthgen.measure",
    "Question": "synthgen.measure",
    "abstain": "synthgen.measure",
    "embed": "synthgen.engines.embeddings",
    "Record": "synthgen.record",
    "default_model": "synthgen.models",
    "read_prompt": "synthgen.prompt_files",
    "read_records": "synthgen.reading",
    "schema_validator": "synthgen.schema_checks",
    "load": "synthgen.api",
    "run": "synthgen.api",
}
__all__ = [
    "FieldName",
    "InputFile",
    "Measurement",
    "PromptFile",
    "Question",
    "Record",
    "abstain",
    "default_model",
    "embed",
    "filter",
    "load",
    "read_prompt",
    "read_records",
    "run",
    "schema_validator",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import synthgen` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'synthgen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
