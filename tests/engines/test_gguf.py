from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from synthgen.engines.gguf import read_bytes, to_safetensors
from tests.engines.vllm_fixtures import MARKS, model_folder

__all__ = ["model_folder"]


def test_a_tokenizer_of_bytes_says_so() -> None:
    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(letters, [], byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()]
    )
    before = tokenizer.encode("ein Café ▁ 東京").ids
    read_bytes(tokenizer)
    said = json.loads(tokenizer.to_str())
    assert said["decoder"]["type"] == "ByteLevel"
    assert said["model"]["byte_fallback"] is False
    assert tokenizer.encode("ein Café ▁ 東京").ids == before
    assert tokenizer.decode(before) == "ein Café ▁ 東京"


class TestDefaultModel:
    """As vLLM loads it."""

    pytestmark = MARKS

    def test_tokens_are_what_the_file_says(self, model_folder: Path) -> None:
        """llguidance, which holds an answer to its schema, has to see the same bytes."""
        import llguidance.hf
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(model_folder), local_files_only=True)
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
        guided = llguidance.hf.from_tokenizer(tokenizer)
        assert guided.eos_token == 2
        text = " the café, 東京"
        assert guided.decode_bytes(tokenizer.encode(text, add_special_tokens=False)) == text.encode()

    def test_what_was_made_in_another_way_is_made_again(self, default_model: Path, tmp_path: Path) -> None:
        made = to_safetensors(default_model, tmp_path)
        mark = json.loads((made / "converted.json").read_text())
        (made / "converted.json").write_text(json.dumps({**mark, "made": 1}))
        (made / "stale").touch()
        assert to_safetensors(default_model, tmp_path) == made
        assert not (made / "stale").exists()
        assert json.loads((made / "converted.json").read_text()) == mark
