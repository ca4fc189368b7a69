"""What a recipe may say, as pydantic models: the edge where a person's YAML becomes checked values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from synthgen.seed_kinds import Part, Seed, expand_seed

NAME = re.compile(r"^[A-Za-z0-9._-]{1,80}$")
STRADDLE = "straddle"  # the filter that keeps what is alike in one split
RESERVED = ("id", "dropped_by", "measurements")
MESSAGES = ("messages", "prompt", "completion", "chosen", "rejected")  # columns that may be lists of them
RE_ASKS = 2
MOST = 1000  # branches or questions that one step makes of one branch
MOST_OF_A_TASK = 10_000  # branches that `n:` makes of one task
MOST_TURNS = 100  # of a conversation
CALLS = 4  # of tools, in a row
NO_MESSAGES = "a prompt has either `user:` (with `system:` if wanted) or `messages:`"
SYSTEM_ALONE = "the prompt of a conversation is `system:` alone; what the user says, `conversation:` has"
Name = Annotated[str, StringConstraints(pattern=NAME.pattern)]
Engine = Literal["vllm", "openai", "llamacpp"]
Role = Literal["system", "user", "assistant"]
Json = Any


class Misplaced(ValueError):
    """A mistake in how parts go together. `at` leads from the part that was checked to the wrong one."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


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


MessageTemplate = dict[Role, str]


class PromptBody(Part):
    """A prompt: one template a message, whose turn is next, and the JSON schema of the answer, if any."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("user", "messages", "writes")]}
    )

    description: str | None = None
    system: str | None = None
    user: str | None = None
    messages: list[MessageTemplate] | None = None
    writes: Literal["user"] | None = Field(
        None, description="The model writes the user's next turn, not an answer (Magpie)."
    )
    output: dict[str, Json] | None = None

    @model_validator(mode="after")
    def _has_messages(self) -> PromptBody:
        if self.writes is None and (self.user is None) == (self.messages is None):
            raise ValueError(NO_MESSAGES)
        if self.messages is not None and self.system is not None:
            raise ValueError("put the system message into `messages:`, as its first")
        return self

    @model_validator(mode="after")
    def _leaves_the_turn_open(self) -> PromptBody:
        if self.writes is None:
            return self
        if self.user is not None or (self.messages and "user" in self.messages[-1]):
            raise ValueError(
                "`writes: user` leaves the user's turn to the model: before it there is a system message, or "
                "`messages:` that end with the assistant's"
            )
        if self.output is not None:
            raise Misplaced("a user's turn is free text: with `writes: user` there is no `output:`", "output")
        return self

    @field_validator("messages")
    @classmethod
    def _one_role_each(cls, value: list[MessageTemplate] | None) -> list[MessageTemplate] | None:
        _one_key_each(value, "message")
        return value

    def turns(self) -> list[tuple[Role, str]]:
        """Role and template of each message, in order."""
        if self.messages is not None:
            return [next(iter(message.items())) for message in self.messages]
        turns: list[tuple[Role, str | None]] = [("system", self.system), ("user", self.user)]
        return [(role, template) for role, template in turns if template is not None]


def _one_key_each(value: Any, what: str, *at: str) -> None:
    for place, item in enumerate(value or []):
        if isinstance(item, dict) and len(item) != 1:
            keys = ", ".join(map(str, item)) or "none"
            raise Misplaced(f"each {what} has one key, but this one has: {keys}", *at, place)


class SystemBody(Part):
    """The prompt of a conversation: its system message; an empty one is left out."""

    description: str | None = None
    system: str

    def turns(self) -> list[tuple[Role, str]]:
        """Role and template of its one message."""
        return [("system", self.system)]


def _prompt_kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "inline"


def _step_prompt_kind(value: Any) -> str:
    alone = isinstance(value, dict) and "system" in value and {*value} <= {*SystemBody.model_fields}
    return "system alone" if alone or isinstance(value, SystemBody) else _prompt_kind(value)


TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,79}$")]


class Extract(Part):
    """What is taken out of an answer's text: what stands in tags, or what a regular expression finds."""

    tag: TagName | Annotated[list[TagName], Field(min_length=1)] | None = Field(
        None, description="`answer` for what stands between <answer> and </answer>; a list gives a mapping."
    )
    regex: str | None = Field(
        None, max_length=10_000, description="In RE2's syntax; named groups give a mapping."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Extract:
        if (self.tag is None) == (self.regex is None):
            raise ValueError("`extract:` has either `tag:` or `regex:`")
        return self


Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")]


class Voice(Part):
    """Who else speaks in a conversation: asked as a step is. Without `model:` it is the step's."""

    prompt: Annotated[
        Annotated[str, Tag("name")] | Annotated[PromptBody, Tag("inline")], Discriminator(_prompt_kind)
    ]
    model: Name | None = Field(None, description="One of `models:`.")
    sampling: Sampling = Sampling()

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"prompt": value} if isinstance(value, str) else value


class Given(Part):
    """What a tool's call results in, where no model simulates it."""

    value: str = Field(
        description="A Jinja expression over the fields, `call`, `tool`, `messages` and `turn`."
    )


def _results_kind(value: Any) -> str:
    given = isinstance(value, Given) or (isinstance(value, dict) and "value" in value)
    return "given" if given else "simulated"


def _tools_kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "expression"


class Conversation(Part):
    """A conversation of a simulated user with the model that the step asks."""

    user: Voice | None = Field(
        None, description="The prompt of the simulated user: it sees the fields, `messages` and `turn`."
    )
    opening: str | None = Field(None, description="A template that gives the user's first message.")
    turns: int = Field(ge=1, le=MOST_TURNS, description="Messages of the user at most.")
    until: str | None = Field(
        None,
        description="A Jinja expression over what the user `said`; where it is true the user has left, "
        "and that message is no part of the conversation.",
    )
    tools: (
        Annotated[
            Annotated[str, Tag("expression")] | Annotated[list[dict[str, Json]], Tag("list")],
            Discriminator(_tools_kind),
        ]
        | None
    ) = Field(None, description="The tools that may be called, or a Jinja expression that gives them.")
    results: (
        Annotated[
            Annotated[Given, Tag("given")] | Annotated[Voice, Tag("simulated")],
            Discriminator(_results_kind),
        ]
        | None
    ) = Field(
        None,
        description="The prompt that simulates what a call results in, or `{value: EXPRESSION}`; without it "
        "a call ends the conversation.",
    )
    calls: int | None = Field(None, ge=1, le=32, description="Of tools, in a row, at most (4).")

    @model_validator(mode="after")
    def _goes_together(self) -> Conversation:
        if self.user is None and self.opening is None:
            raise ValueError("a conversation needs `user:`, the prompt of who begins it, or `opening:`")
        if self.user is None and self.turns > 1:
            raise Misplaced("more than one turn needs `user:`, the prompt of who goes on", "turns")
        if self.user is None and self.until is not None:
            raise Misplaced("`until:` looks at what `user:` says, and there is none", "until")
        for key in ("results", "calls"):
            if getattr(self, key) is not None and self.tools is None:
                raise Misplaced(f"`{key}:` is for conversations with `tools:`", key)
        return self

    @property
    def voices(self) -> dict[str, Voice]:
        """Who is asked besides the step's own model, by the key of each."""
        asked = {"user": self.user, "results": self.results}
        return {key: voice for key, voice in asked.items() if isinstance(voice, Voice)}


class Step(Part):
    """Questions to a model; the answer, or the list of them, becomes the field that the step is named for."""

    prompt: Annotated[
        Annotated[str, Tag("name")]
        | Annotated[PromptBody, Tag("inline")]
        | Annotated[SystemBody, Tag("system alone")],
        Discriminator(_step_prompt_kind),
    ]
    conversation: Conversation | None = Field(
        None, description="The field is a conversation with this model: a list of messages."
    )
    model: Name | None = Field(None, description="One of `models:`.")
    sampling: Sampling = Sampling()
    output: dict[str, Json] | None = Field(
        None,
        description="The JSON schema that answers are decoded under, in place of the prompt's.",
    )
    extract: Extract | None = Field(None, description="What is taken out of an answer, for want of a schema.")
    reasoning: Identifier | None = Field(
        None, description="The name of a field for what the model thought before its answer, apart from it."
    )
    retries: int | None = Field(
        None, ge=0, le=20, description="How often an answer that cannot be used is asked for again (2)."
    )

    n: int | None = Field(
        None, ge=1, le=MOST, description="How many answers; each makes a branch of its own."
    )
    foreach: str | None = Field(
        None, description="A Jinja expression that gives a list; each of its items makes a branch of its own."
    )
    as_: Identifier | None = Field(
        None, alias="as", description="The name of an item of `foreach:` (`item`)."
    )
    gather: bool = Field(False, description="The field is the list of all answers, and no branch is made.")
    when: str | None = Field(
        None, description="A Jinja expression; where it is false the step is skipped, and its field is null."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Step:
        if isinstance(self.prompt, SystemBody) and self.conversation is None:
            raise Misplaced(NO_MESSAGES, "prompt")
        if self.conversation is not None:
            if isinstance(self.prompt, PromptBody):
                raise Misplaced(SYSTEM_ALONE, "prompt")
            for key in ("output", "extract"):
                if getattr(self, key) is not None:
                    raise Misplaced("what is said in a conversation is text, without a form", key)
            if self.reasoning is not None:
                raise Misplaced("a conversation keeps no reasoning apart", "reasoning")
        if self.extract is not None and self.output is not None:
            raise Misplaced("a step has either `output:` or `extract:`, not both", "extract")
        if self.n is not None and self.foreach is not None:
            raise Misplaced("a step has either `n:` or `foreach:`, not both", "n")
        if self.gather and self.n is None and self.foreach is None:
            raise Misplaced("`gather:` is for steps with `n:` or `foreach:`", "gather")
        if self.as_ is not None and self.foreach is None:
            raise Misplaced("`as:` names the items of `foreach:`, and there is none", "as")
        return self

    @property
    def others(self) -> dict[str, Name | None]:
        """The model of everyone else in its conversations, by their keys."""
        voices = self.conversation.voices if self.conversation is not None else {}
        return {key: voice.model or self.model for key, voice in voices.items()}

    @property
    def item(self) -> str:
        """The name of an item of `foreach:`."""
        return self.as_ or "item"

    @property
    def tells(self) -> bool:
        """Whether a model is told why its answer is asked for again."""
        return self.output is not None or self.extract is not None or self.retries is not None


Kind = Literal["json", "text", "boolean", "integer", "number", "messages", "tools"]
TOOLS = "tools"  # the field of a row beside which its messages may call tools


class ValueField(Part):
    """A field of the row that is no text: what a Jinja expression gives, as it is."""

    value: str
    type: Kind = Field("json", description="In Parquet; `json` and `tools` are kept there as text.")


def _field_kind(value: Any) -> str:
    return "a text" if isinstance(value, str) else "messages" if isinstance(value, list) else "a value"


RowField = Annotated[
    Annotated[str, Tag("a text")]
    | Annotated[list[MessageTemplate], Field(min_length=1), Tag("messages")]
    | Annotated[ValueField, Tag("a value")],
    Discriminator(_field_kind),
]


class RecordShape(BaseModel):
    """What a row of the dataset holds: `messages`, or another field's conversation, and any more fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    from_: Name | None = Field(None, alias="from")
    messages: list[MessageTemplate] | None = None
    __pydantic_extra__: dict[str, RowField]

    @field_validator("messages")
    @classmethod
    def _one_role_each(cls, value: list[MessageTemplate] | None) -> list[MessageTemplate] | None:
        _one_key_each(value, "message")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> RecordShape:
        if self.from_ is not None and self.messages is not None:
            raise Misplaced("a record has either `from:` or `messages:`, not both", "from")
        if self.from_ is None and not self.messages and not self.fields:
            raise ValueError("a record needs `messages:`, `from:` or a field of its own")
        for name in self.fields:
            if name in RESERVED:
                raise Misplaced(f"`{name}` is given by synthgen; call the field something else", name)
            if not NAME.match(name):
                raise Misplaced(f"{name!r} is not a name: 1 to 80 of A-Z a-z 0-9 . _ -", name)
            said = self.fields[name]
            if isinstance(said, list) or (isinstance(said, ValueField) and said.type == "messages"):
                if name not in MESSAGES:
                    known = ", ".join(MESSAGES)
                    raise Misplaced(f"`{name}` is no text; a list of messages is called {known}", name)
                _one_key_each(said if isinstance(said, list) else None, "message", name)
        return self

    @property
    def columns(self) -> list[str]:
        """The row's fields beside its id, in order."""
        return list(self.kinds)

    @property
    def calls(self) -> bool:
        """Whether messages that a field gives as they are may call tools: the row says which there are."""
        return TOOLS in self.fields

    @property
    def kinds(self) -> dict[str, str]:
        """The row's fields beside its id, in order, each with what its column holds: `tools` are JSON."""
        given = "tool messages" if self.calls else "messages"
        kinds = {"messages": given, "tools": "json"}
        first = {"messages": given if self.from_ is not None else "messages"}
        return (first if self.from_ is not None or self.messages else {}) | {
            name: "text"
            if isinstance(said, str)
            else "messages"
            if isinstance(said, list)
            else kinds.get(said.type, said.type)
            for name, said in self.fields.items()
        }

    @property
    def fields(self) -> dict[str, RowField]:
        """The fields beside the messages."""
        return self.__pydantic_extra__ or {}


Bound = Annotated[float, Field(allow_inf_nan=False, strict=True)]


OnError = Literal["fail", "stop"]


class FilterUse(BaseModel):
    """One filter in a recipe: its bound, what it looks at, what it does, and its own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    filter: Name | None = Field(None, description="The filter's own name, where it is used under another.")
    of: str | None = None
    min: Bound | None = None
    max: Bound | None = None
    action: Literal["drop", "flag", "redact"] | None = None
    on_error: OnError | None = Field(
        None,
        description="What an error of the filter's code does: `fail` sets the record aside and goes on, "
        "`stop` ends the run at the first; without it the run ends where they come in a row.",
    )
    __pydantic_extra__: dict[str, Json]

    @property
    def params(self) -> dict[str, Json]:
        """What is left for the filter itself."""
        return self.__pydantic_extra__ or {}


def _filter_kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "mapping"


def _empty_use(value: Any) -> Any:
    return {} if value is None else value


FilterEntry = Annotated[
    Annotated[Name, Tag("name")] | Annotated[dict[Name, FilterUse], Tag("mapping")],
    Discriminator(_filter_kind),
]


class Budget(Part):
    """How much a run may spend. It ends in task order at the first record that spends one of them.

    `seconds` alone depends on the machine: where it cut is recorded.
    """

    attempts: int | None = Field(None, ge=1, description="Branches tried at most, for a target.")
    output_tokens: int | None = Field(None, ge=1, description="Tokens generated.")
    money: float | None = Field(None, gt=0, description="What the tokens cost at the models' `prices:`.")
    seconds: float | None = Field(None, gt=0, description="Of wall-clock time.")


def _text_keys(value: Any) -> Any:
    """The values of a field as text, as they are compared: YAML may read them as numbers, true or false."""
    if not isinstance(value, dict):
        return value
    return {key if isinstance(key, str) else json.dumps(key): share for key, share in value.items()}


Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Shares = Annotated[dict[str, Share], Field(min_length=1), BeforeValidator(_text_keys)]


def _shares_kind(value: Any) -> str:
    return "even" if isinstance(value, str) else "shares"


Wished = Annotated[
    Annotated[Literal["even"], Tag("even")] | Annotated[Shares, Tag("shares")], Discriminator(_shares_kind)
]


class Grow(Part):
    """How kept records become rows of a seed, for the rounds after their own."""

    add: str = Field(
        description="A Jinja expression over a kept record's fields: the row that it adds; null adds none."
    )
    depth: int | None = Field(
        None, ge=1, le=1000, description="Generations of records at most; the last one's add nothing."
    )
    most: int | None = Field(
        None, ge=0, description="Of a seed with `n:`: at most so many of a task's rows are added ones."
    )


def _expand_grow(value: Any) -> Any:
    return {"add": value} if isinstance(value, str) else value


class Output(Part):
    """Which files a dataset has."""

    formats: list[Literal["parquet", "jsonl"]] = Field(["parquet", "jsonl"], min_length=1)
    split: dict[Name, Annotated[float, Field(gt=0)]] = {"train": 1.0}
    provenance: Literal["column"] | None = Field(
        None, description="Also as a column of each row; it is beside the rows in any case."
    )

    @field_validator("split")
    @classmethod
    def _adds_up(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, not to {sum(value.values()):g}")
        return value


class Recipe(Part):
    """A recipe, checked in itself. What it names outside itself is checked when it is loaded."""

    version: Literal[1]
    name: Name
    description: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    model: ModelRef | None = None
    models: dict[Name, ModelRef] = {}
    sampling: Sampling = Sampling()
    seeds: dict[Name, Annotated[Seed, Field()]] = {}
    steps: list[dict[Name, Step]] = []
    record: RecordShape
    filters: list[FilterEntry] = []
    target: int | None = Field(None, ge=1)
    tasks: int | None = Field(None, ge=1)
    passes: int | None = Field(None, ge=1)
    budget: Budget = Budget()
    balance: dict[str, Wished] = Field(
        {},
        description="Of a seed, or a field of its rows (`row.topic`): the share of each value in kept rows.",
    )
    grow: dict[Name, Annotated[Grow, BeforeValidator(_expand_grow)]] = Field(
        {}, description="Seeds whose rows kept records add to, from round to round."
    )
    round: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Tasks of a round: what the next takes, the verdicts before it say.",
    )
    output: Output = Output()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if value in (".", ".."):
            raise ValueError(f"{value!r} cannot name a run's folder")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _lists_are_values(cls, value: Any) -> Any:
        return {key: expand_seed(seed) for key, seed in value.items()} if isinstance(value, dict) else value

    @field_validator("filters", mode="before")
    @classmethod
    def _bare_filters(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [
            {name: _empty_use(use) for name, use in entry.items()} if isinstance(entry, dict) else entry
            for entry in value
        ]

    @field_validator("steps", "filters")
    @classmethod
    def _one_name_each(cls, value: Any) -> Any:
        _one_key_each(value, "entry of the list")
        return value

    @model_validator(mode="after")
    def _has_room_for_provenance(self) -> Recipe:
        if self.output.provenance and "provenance" in self.record.columns:
            raise Misplaced(
                "`provenance: column` gives a field of that name; call your own something else",
                "record",
                "provenance",
            )
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        if self.target is not None and self.tasks is not None:
            raise Misplaced("`target:` counts kept rows and `tasks:` counts tasks: give one of them", "tasks")
        if self.passes is not None and self.target is None:
            raise Misplaced(
                "`passes:` limits how often seeds are used again for a `target:`, and there is none", "passes"
            )
        if self.budget.attempts is not None and self.target is None:
            raise Misplaced(
                "`attempts:` limits what a `target:` may try, and there is none; use `tasks:`", "budget"
            )
        if self.balance and self.target is None:
            raise Misplaced(
                "`balance:` chooses tasks for a `target:` of kept rows, and there is none", "balance"
            )
        return self

    @model_validator(mode="after")
    def _has_rounds(self) -> Recipe:
        if self.grow and self.balance:
            raise Misplaced("a recipe has either `balance:` or `grow:`, not both", "grow")
        if self.round is not None and not self.balance and not self.grow:
            raise Misplaced(
                "`round:` is the size of the rounds of `balance:` and `grow:`, and there is neither", "round"
            )
        return self

    @model_validator(mode="after")
    def _has_its_names_once(self) -> Recipe:
        taken = set(self.seeds)
        branches = 1
        for place, (name, step) in enumerate(self.named_steps()):
            if name in taken:
                raise Misplaced(
                    f"the name {name!r} is given twice among seeds and steps", "steps", place, name
                )
            taken.add(name)
            if step.reasoning in taken:
                raise Misplaced(
                    f"the name {step.reasoning!r} is taken; call the reasoning's field something else",
                    *("steps", place, name, "reasoning"),
                )
            taken |= {step.reasoning} if step.reasoning else set()
            if step.foreach is not None and step.item in taken:
                raise Misplaced(
                    f"the name {step.item!r} of an item is taken; give another with `as:`",
                    *("steps", place, name, "as" if step.as_ else "foreach"),
                )
            if step.foreach is not None and not step.gather:
                taken.add(step.item)
            branches *= 1 if step.gather else step.n or 1
            if branches > MOST_OF_A_TASK:
                raise Misplaced(
                    f"a task would have {branches:,} branches, more than {MOST_OF_A_TASK:,}",
                    *("steps", place, name, "n"),
                )
        named: set[str] = set()
        for place, (name, _) in enumerate(self.filter_uses()):
            if name in named:
                raise Misplaced(
                    f"two filters are called {name}; give one another name, such as "
                    f"`{name}_again: {{filter: {name}}}`",
                    "filters",
                    place,
                    name,
                )
            named.add(name)
        return self

    def named_steps(self) -> list[tuple[str, Step]]:
        """Name and step, in order."""
        return [next(iter(entry.items())) for entry in self.steps if entry]

    @property
    def fields(self) -> list[str]:
        """What a finished branch has values for: seeds, then steps with their items and their reasoning."""
        names = list(self.seeds)
        for name, step in self.named_steps():
            names += [*([step.item] if step.foreach is not None and not step.gather else []), name]
            names += [step.reasoning] if step.reasoning else []
        return names

    def filter_uses(self) -> list[tuple[str, FilterUse]]:
        """Name and use of each filter, in order; with several splits `straddle` is one of them."""
        uses = [
            (entry, FilterUse()) if isinstance(entry, str) else next(iter(entry.items()))
            for entry in self.filters
            if entry
        ]
        if len(self.output.split) == 1:
            return uses
        if STRADDLE not in [use.filter or name for name, use in uses]:
            uses.append((STRADDLE, FilterUse()))
        return [
            (name, _with_shares(use, self.output.split) if (use.filter or name) == STRADDLE else use)
            for name, use in uses
        ]


def _with_shares(use: FilterUse, shares: Mapping[str, float]) -> FilterUse:
    said = use.model_dump(exclude_unset=True)
    return FilterUse.model_validate({"shares": dict(shares), **said})


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
