"""Are texts that are nearly the same in several splits of the dataset?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from synthgen import Measurement, Record, abstain, filter
from synthgen.filters.duplicate import duplicate
from synthgen.splits import Splits

MARGIN = 0.1  # pairs less similar by this are found with 99 %, so that those that count are nearly always


@filter(max=1, kind="run", of="both")
class straddle:
    """In how many splits of the dataset there is a record already that is nearly the same.

    A recipe whose output has several splits ends with this filter, without naming it. 0: the record's id
    decides which split it goes to. 1: it goes to that split, which the detail has as `split`, with the id of
    the earliest record there that is like it, as `of`. 2 and more: it would bridge splits that stand already,
    and by the default bound it is dropped. So nothing in one split is nearly the same as something in
    another, and a record stays in its split when others come after it.

    A recipe names it to look at something else (`of: instruction`) or to change its parameters.

    Parameters:
        similarity: from where on two texts are nearly the same, as `duplicate` measures it.
        shares: of the splits; those of the recipe's output unless given.

    Source: `duplicate`, which says what is compared and how. A pair with a similarity of 0.7 is found with a
    probability of 99.99 %, a more similar one with more.

    Weak at: rewording; datasets whose texts share most of their words, all of which go to one split; records
    without text (of `both` none: no question and no answer), on which it abstains.

    Memory: that of `duplicate`, once more.
    """

    def __init__(self, *, similarity: float = 0.7, shares: dict[str, float] | None = None) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity must be above 0 and at most 1, not {similarity}")
        self.similarity = similarity
        self._by_id = Splits(shares or {"train": 1.0})
        self._texts: Any = duplicate(max=max(similarity - MARGIN, 0.05))
        self._splits: list[str] = []
        self._ids: list[str] = []

    def features(self, records: Sequence[Record]) -> list[bytes]:
        """Those of `duplicate`."""
        features: list[bytes] = self._texts.features(records)
        return features

    def ahead(self, features: Sequence[bytes]) -> None:
        """Look up many at once that are to be resolved next. Changes how fast that is, nothing else."""
        self._texts.ahead(features)

    def resolve(self, id: str, feature: bytes) -> Measurement:
        """The number of splits, and where the record goes."""
        if feature == self._nothing:
            return abstain("there is no text to compare")
        near = self._near(feature)
        if not near:
            return Measurement(0)
        splits = sorted({self._splits[number] for number in near})
        detail = {"split": self._splits[near[0]], "of": self._ids[near[0]]}
        return Measurement(len(splits), detail if len(splits) == 1 else {**detail, "splits": splits})

    def keep(self, id: str, feature: bytes) -> None:
        """From now on, others that are like it go where it is."""
        if feature == self._nothing or self._texts.number_of(feature) is not None:
            return
        near = self._near(feature)
        self._splits.append(self._splits[near[0]] if near else self._by_id.of(id))
        self._ids.append(id)
        self._texts.keep(id, feature)

    def _near(self, feature: bytes) -> list[int]:
        """The numbers of kept records that are nearly the same, in their order."""
        found = self._texts.similar(feature)
        return sorted(number for similarity, number in found if similarity >= self.similarity)

    @cached_property
    def _nothing(self) -> bytes:
        """The feature of a text without words."""
        [feature] = self._texts.features([Record("", {}, {}, "")])
        return bytes(feature)
