"""The marks of chat templates inside texts: broken wherever they stand, and nothing else is changed."""

from __future__ import annotations

import re
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from synthgen.engines.marks import Marks, marks_of_gguf, marks_of_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "<filename>"]
MARKS = Marks(SPECIAL, "[INST]{{ x }}<|im_start|>", ["<s>", "</s>"])
BROKEN = re.compile(re.escape("<|im_start|>") + r"|<\|im_end\|>|<s>|</s>|\[INST\]")


def test_marks_are_broken_and_other_words_are_not() -> None:
    assert MARKS.broken("a <|im_start|>b</s> [INST] <filename> <think>") == (
        "a < |im_start|>b< /s> [ INST] <filename> <think>"
    )
    message = {"role": "</s>", "content": "<s>", "calls": [{"arguments": {"x": "[INST]"}, "n": 1}]}
    assert MARKS.broken(message) == {
        "role": "</s>", "content": "< s>", "calls": [{"arguments": {"x": "[ INST]"}, "n": 1}]
    }  # fmt: skip
    assert Marks((), "").broken("<|im_start|>") == "<|im_start|>"


@given(st.lists(st.sampled_from([*SPECIAL, "<", "|", ">", "<|", "|>", "im_end", "s", "a", " "]), max_size=12))
def test_none_is_left_and_without_marks_nothing_changes(parts: list[str]) -> None:
    text = "".join(parts)
    broken = MARKS.broken(text)
    assert BROKEN.search(broken) is None
    assert broken.replace(" ", "") == text.replace(" ", "")
    if BROKEN.search(text) is None:
        assert broken == text


def test_what_a_model_says_of_its_marks() -> None:
    gguf = {
        "tokenizer.ggml.tokens": ["a", "<end>", "<|x|>", "<file>", "<think>", "<turn>"],
        "tokenizer.ggml.token_type": [1, 3, 3, 3, 4, 3],
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": "<turn><think>{{ x }}",
    }
    assert marks_of_gguf(gguf).broken("<end><|x|><file><think><turn>") == ("< end>< |x|><file><think>< turn>")
    tokenizer = SimpleNamespace(all_special_tokens=["</s>"], added_tokens_decoder={}, chat_template=None)
    assert marks_of_tokenizer(tokenizer).broken("</s> <s>") == "< /s> <s>"
    assert marks_of_tokenizer(object()).broken("</s>") == "</s>"
