"""How much does the instruction help to say the answer?"""

from __future__ import annotations

from math import exp
from pathlib import Path

from synthgen import InputFile, Measurement, Record, abstain, default_model, filter
from synthgen.filters._likelihood import Likelihood, require

ASKED, ANSWERED = 600, 400  # tokens read of each
SIGNS = 6  # characters that a token has at most, on average: more need not be split into tokens
FEWEST = 5

# SHA-256 of what `default_model` gives.
SMOLLM2_135M = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@filter(max=1)
class ifd:
    """How much harder than without its instruction a small model finds the answer: its IFD score.

    It is the perplexity of the answer after its instruction, divided by that after an empty one. Above 1 the
    instruction only misleads: the two do not belong together. Near 0 it says all of the answer. Of what is
    below 1, the highest are the most instructive; Superfiltering trains on the highest tenth. The detail has
    both perplexities.

    Of the instruction the last 600 tokens are read, of the answer the first 400. Abstains without an
    instruction, and on answers of fewer than five tokens.

    Parameters:
        model: a GGUF file of the project, in place of SmolLM2-135M-Instruct.

    Source: Superfiltering (Li et al., 2024), whose model was GPT-2 of 124M; here in the chat template of the
    model, with an empty instruction in place of none.

    Weak at: speed: a core reads some 100 tokens a second, and it reads each answer twice. Answers in
    languages or of a kind that the model does not know. Stock answers (refusals, code that few words ask for)
    have about 1, and of short ones a good one may have 1.1. A copy of the instruction has next to nothing. It
    needs the extra `likelihood`, and 0.4 GB in each process that measures. Another kind of processor may give
    other last digits.
    """

    def __init__(self, *, model: InputFile | None = None) -> None:
        require()
        self._weights = model
        self._loaded: Likelihood | Exception | None = None

    @staticmethod
    def weights(*, model: Path | None = None) -> dict[str, str]:
        """The model that it measures by; of a file of the project the digest is known as it is."""
        return {"smollm2-135m": SMOLLM2_135M} if model is None else {}

    def measure(self, record: Record) -> Measurement:
        """The score, with the two perplexities."""
        if not record.instruction.strip() or record.text == record.instruction:
            return abstain("there is no instruction to it")
        reader = self._reader()
        answer = reader.tokens(record.text[: SIGNS * ANSWERED])[:ANSWERED]
        if len(answer) < FEWEST:
            return abstain(f"{len(answer)} tokens are too few")
        asked = reader.prompt(record.instruction[-SIGNS * ASKED :])[-ASKED:]
        after = float(reader.losses(asked, answer).mean())
        alone = float(reader.losses(reader.prompt(""), answer).mean())
        detail = {"perplexity": round(exp(after), 3), "without": round(exp(alone), 3)}
        return Measurement(exp(after - alone), detail)

    def _reader(self) -> Likelihood:
        """Loaded once, or its failure told again."""
        if self._loaded is None:
            try:
                self._loaded = Likelihood(self._weights or default_model(), ASKED + ANSWERED + 24)
            except Exception as error:  # whatever it is, it is the same for the next record
                self._loaded = error
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded
