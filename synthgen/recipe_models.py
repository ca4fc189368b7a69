"""What a recipe may say of models: which answers, what it costs, and how completions are sampled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from synthgen.recipe_parts import Json, Part

Engine = Literal["vllm", "openai", "llamacpp"]


class Sampling(Part):
    """How a completion is sampled, in the names and with the defaults of vLLM's sampling parameters.

    Only `max_tokens` has a default of its own, since vLLM's (16) suits nobody.
    """

    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0)
    logit_bias: dict[int, float] | None = None
    bad_words: list[str] | None = None

    def over(self, base: Sampling) -> Sampling:
        """These settings where given, the base's elsewhere."""
        return base.model_copy(update=self.model_dump(exclude_none=True))

    def settings(self) -> dict[str, Json]:
        """What is set, as plain values, `max_tokens` always among it."""
        return {"max_tokens": 512, **self.model_dump(exclude_none=True, mode="json")}


class Prices(Part):
    """What a million tokens cost, in whatever currency `budget: {money: ...}` counts."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class ModelRef(Part):
    """Which model answers, through which engine."""

    engine: Engine | None = None
    id: str = Field(min_length=1)
    revision: str | None = None
    base_url: str | None = None
    options: dict[str, Json] = {}
    template_args: dict[str, Json] = {}
    prices: Prices | None = Field(None, description="Of a million tokens; for `budget: {money: ...}`.")
    terms: str | None = Field(
        None,
        min_length=1,
        description="Under which its output may be used, as you know them; for the provenance.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _url_where_it_belongs(self) -> ModelRef:
        if self.base_url and self.engine not in ("openai", None):
            raise ValueError(f"base_url belongs to engine: openai, not to {self.engine}")
        return self
