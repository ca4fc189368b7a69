import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen import load
from synthgen.filters.characters import characters
from synthgen.filters.length import length
from synthgen.filters.words import words
from synthgen.measure import Measurement
from synthgen.record import Record

ROOT = Path(__file__).parents[2]
TEXTS = [
    "Hello world",
    "It's 2024, isn't it? I'LL say so.",
    "def f(x):\n\treturn x  # a comment\n\n\n    y = 10**6\r\n",
    "Füße über 日本語 und 🎉 — naïve café…",
    "   leading and trailing   ",
    "A, b; c: (d) [e] {f} <g> \"h\" 'i' 1,234,567.89",
]


def measured(text: str, **params: Any) -> float:
    [result] = length.make(params).measure([Record("r", {}, {}, text)])
    assert isinstance(result, Measurement), result
    assert result.value is not None
    return result.value


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer.json that cuts at spaces, and would cut off and fill up what it is given."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(4)
    made.enable_padding(length=4)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(file))
    return file


@given(st.text(max_size=50))
def test_words_and_characters_are_those_of_their_filters(text: str) -> None:
    record = Record("r", {}, {}, text)
    assert measured(text) == measured(text, **{"in": "words"}) == words(record)
    assert measured(text, **{"in": "characters"}) == characters(record)


def test_tokens_of_a_tokenizer_json(tokenizer: Path) -> None:
    assert measured("the cat sat on the mat", tokenizer=tokenizer) == 6
    assert measured("the", tokenizer=tokenizer, **{"in": "tokens"}) == 1
    assert measured("", tokenizer=tokenizer) == 0
    assert measured("the \ud800 \0", tokenizer=tokenizer) == 3


def test_tokens_in_a_recipe(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    recipe = tmp_path / "recipes" / "r.yaml"
    recipe.write_text(
        "version: 1\nname: r\nseeds:\n  row: {values: [1]}\nrecord: {text: '{{ row }}'}\n"
        "filters:\n  - length: {in: tokens, tokenizer: tokenizer.json, max: 5}\n"
    )
    [link] = load(recipe).chain
    made: Any = link.make()
    assert made.measure([Record("r", {}, {}, "the cat sat")]) == [Measurement(3.0)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"in_": "tokens"}, "takes a `tokenizer` or a `model`"),
        ({"in_": "words", "model": "smollm2-135m"}, "to count words or characters none"),
        ({"model": "a/b", "tokenizer": Path("x")}, "not both"),
        (
            {"model": "nobody/no-such-model"},
            "no tokenizer.json of nobody/no-such-model in the Hugging Face cache",
        ),
        ({"model": "not a model"}, "'not a model' is no model"),
    ],
)
def test_what_cannot_be_counted_is_told(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length(**params)


def test_a_model_in_the_cache_of_the_hub(tokenizer: Path, tmp_path: Path) -> None:
    commit = "0" * 40
    repo = tmp_path / "hub" / "models--acme--tiny"
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    code = (
        "from synthgen import Record\nfrom synthgen.filters.length import length\n"
        "print(length(model='acme/tiny').measure(Record('r', {}, {}, 'the cat sat')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HF_HOME": str(tmp_path), "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3\n"


@pytest.mark.parametrize(
    "content", ["", "{}", "[", json.dumps({"model": {"type": "none"}}), "GGUF", "GGUF\3\0\0\0" + "\1" * 40]
)
def test_a_file_that_is_no_tokenizer_is_told(content: str, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json (is neither|cannot be read|has a tokenizer)"):
        length(tokenizer=file)


@pytest.mark.llamacpp
def test_a_gguf_counts_as_llama_cpp_does(default_model: Path) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(default_model)
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    for text in TEXTS:
        answer = server.handle_completions({"prompt": text, "n_predict": 1, "max_tokens": 1})
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        assert measured(text, tokenizer=default_model) == answer["usage"]["prompt_tokens"], text


@pytest.mark.llamacpp
def test_an_alias_counts_as_its_file_does(default_model: Path) -> None:
    one, other = length(model="smollm2-135m"), length(tokenizer=default_model)
    for text in [*TEXTS, "<|im_start|>user\nHi<|im_end|>", "\ud800"]:
        record = Record("r", {}, {}, text)
        assert one.measure(record) == other.measure(record)
        assert 1 <= one.measure(record) <= len(text.encode(errors="replace"))
    assert one.measure(Record("r", {}, {}, "a" * 1_000_000)) > 0
