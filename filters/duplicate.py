"""How much of a text was there before?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen import InputFile, Measurement, Record, filter, read_records
from synthgen.filters._near import HEAD, HIGH, LOW, SIGNATURE, Announced, Kept, digest
from synthgen.filters._shingles import PERMUTATIONS, run_hashes, signatures, word_hashes

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

FOUND_AT_BOUND = 0.99  # 140 permutations split into 20 bands of 7, which find 99.1 % of the pairs at 0.8
LONGEST_RUN = 5
GROUP = 256  # texts hashed at once: few enough that their arrays stay in the processor's cache
GROUP_CHARACTERS = 1 << 20  # of these texts: enough that only very long ones make smaller groups
LONGEST = 100  # words of a run that make sense


@filter(max=0.8, kind="run")
class duplicate:
    """How similar the text is to the most similar one that was kept before it, from 0 to 1.

    1 is the same text, but for case, spacing, punctuation at the edges of words, and compatible characters.
    Else it is the share of runs of words that the two texts have in common (Jaccard), computed exactly for
    every pair that may be similar.
    A run has five words; in texts of fewer than 50 a tenth of them, at least one, so that one changed word
    costs 0.2 at most from ten words on. The detail has the id of the other record. `of: instruction`
    compares questions, `of: both` question and answer together, `of: all` conversations.

    Parameters:
        words: how many words a run has, for texts of any length. Texts of fewer words are one run. In scripts
            without spaces each character counts as a word.
        against: files with records that count as kept before the first. The detail then has the file, as
            `in`, and the row's id or number. They are read as `of` says; rows without such a field are left
            out.

    Source: MinHash with the permutations of datasketch; bands so chosen that a pair as similar as the bound
    is found with a probability of 99 %, a more similar one with more (Leskovec, Rajaraman and Ullman, Mining
    of Massive Datasets, chapter 3). The order of records decides, nothing else.

    Weak at: answers that are labels: of a dataset of Yes and No, one row of each is left, so compare with
    `of: both`; similarity below the bound, which is a lower estimate (0 where no candidate was found); bounds
    below 0.05; rewording, to which it is blind; the order of words in texts of fewer than 20, which are
    compared as sets of words; a long text that contains a short one; hundreds of kept records that share most
    of their text, such as a long system message with `of: all`: of a pair that is hardly more similar than
    all of them are, some are not found.

    Memory: about 800 bytes for each record that is kept and 6 for each of its words: 1.7 GB for a million
    answers of 1,060 characters.
    """

    def __init__(
        self,
        *,
        words: int | None = None,
        against: list[InputFile] | InputFile | None = None,
        max: float | None = None,
        of: str = "answer",
    ) -> None:
        if words is not None and not 1 <= words <= LONGEST:
            raise ValueError(f"words must be from 1 to {LONGEST}, not {words}")
        self.words = words
        self.of = of
        self.rows, self.bands = rows_and_bands(0.8 if max is None else max)
        files = against if isinstance(against, list) else [] if against is None else [against]
        self._unread: list[Path] = list(files)
        self._kept = Kept(self.rows, self.bands)
        self._next = Announced({}, self._kept)
        self._rest: list[bytes] = []

    def features(self, records: Sequence[Record]) -> list[bytes]:
        """Of each record: the sizes of its one or two sets of runs, their signatures, their hashes."""
        features: list[bytes] = []
        texts: list[str] = []
        characters = 0
        for record in records:
            texts.append(record.text)
            characters += len(record.text)
            if len(texts) == GROUP or characters > GROUP_CHARACTERS:
                features += self._features(texts)
                texts, characters = [], 0
        return features + self._features(texts) if texts else features

    def _features(self, texts: Sequence[str]) -> list[bytes]:
        import numpy as np

        hashes, counts = word_hashes(texts)
        lengths = np.full((len(texts), 1), self.words) if self.words else lengths_of_runs(counts)
        text, which = np.nonzero(lengths)
        runs, sizes = run_hashes(hashes, counts, text, lengths[text, which])
        high = (runs >> np.uint64(16)).astype("<u4")
        heads = np.zeros((len(texts), 2), "<u4")
        heads[text, which] = sizes
        views = np.bincount(text, minlength=len(texts))
        ends = np.cumsum(heads.sum(axis=1)).tolist()
        head, signed = heads.tobytes(), signatures(high, sizes).astype("<u4").tobytes()
        most, rest = high.tobytes(), runs.astype("<u2").tobytes()
        features, start, view = [], 0, 0
        for number, (end, more) in enumerate(zip(ends, views.tolist(), strict=True)):
            features.append(
                head[number * HEAD : (number + 1) * HEAD]
                + signed[view * SIGNATURE : (view + more) * SIGNATURE]
                + most[start * HIGH : end * HIGH]
                + rest[start * LOW : end * LOW]
            )
            start, view = end, view + more
        return features

    def ahead(self, features: Sequence[bytes]) -> None:
        """Look up many at once that are to be resolved next. Changes how fast that is, nothing else."""
        self._read_others()
        self._look_up(features)

    def number_of(self, feature: bytes) -> int | None:
        """The number of the kept record, from 0, whose text is the same."""
        self._read_others()
        return self._same(feature)

    def similar(self, feature: bytes) -> Iterable[tuple[float, int]]:
        """Similarities to kept records, each with the record's number; of the same text, to that alone."""
        same = self.number_of(feature)
        return self._next.compared(feature) if same is None else [(1.0, same)]

    def resolve(self, id: str, feature: bytes) -> Measurement:
        """The similarity to the most similar record kept so far; of several, the earliest."""
        best, of = 0.0, -1
        for similarity, number in self.similar(feature):
            if similarity > best or (similarity == best and number < of):
                best, of = similarity, number
        return Measurement(best, self._kept.named(of)) if best else Measurement(0.0)

    def keep(self, id: str, feature: bytes) -> None:
        """From now on, others are compared with this record too."""
        self._read_others()
        self._keep(id, None, feature)

    def _keep(self, id: str, file: str | None, feature: bytes) -> None:
        if self._same(feature) is None:
            self._next.keep(id, file, feature)

    def _same(self, feature: bytes) -> int | None:
        """The number of the kept record with that feature; if there is none, it is announced from here on."""
        if feature in self._next.places:
            return self._next.number_of(feature)
        same = self._kept.exactly(digest(feature))
        if same is None:
            self._look_up(self._rest if self._rest[:1] == [feature] else [feature])
        return same

    def _look_up(self, features: Sequence[bytes]) -> None:
        self._next.enter()
        digests = {feature: digest(feature) for feature in features}
        new = [(feature, said) for feature, said in digests.items() if self._kept.exactly(said) is None]
        count = len(new)
        self._next = Announced(dict(new), self._kept)
        while count and not self._next.places:
            count //= 2
            self._next = Announced(dict(new[:count]), self._kept)
        self._rest = [feature for feature, _ in new[count:]]

    def _read_others(self) -> None:
        """Keep the records of other datasets: late, since processes that only hash have no use for them."""
        while self._unread:
            path = self._unread[0]
            records = _picked(read_records(path), self.of)
            while batch := list(islice(records, GROUP)):
                features = self.features(batch)
                self._look_up(features)
                for record, feature in zip(batch, features, strict=True):
                    self._keep(_plain(record.id), _plain(path.name), feature)
            self._unread.pop(0)


def rows_and_bands(bound: float) -> tuple[int, int]:
    """The longest bands that still find a pair at the bound with FOUND_AT_BOUND, and how many there are."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - min(max(bound, 0.0), 1.0) ** rows) ** bands >= FOUND_AT_BOUND:
            return rows, bands
    return 1, PERMUTATIONS


def lengths_of_runs(counts: Array) -> Array:
    """How long the runs of texts of so many words are: one or two lengths for each, 0 for none.

    The second is that of texts a quarter shorter: a pair is compared by what both have, so that it does not
    matter on which side of a step each stands.
    """
    import numpy as np

    lengths: Array = np.clip(np.stack([counts // 10, counts * 3 // 40], axis=1), 1, LONGEST_RUN)
    lengths[lengths[:, 0] == lengths[:, 1], 1] = 0
    return lengths


def _plain(name: str) -> str:
    """A name as it can stand in a detail."""
    return name[:200].encode(errors="replace").decode()


def _picked(records: Iterable[Record], of: str) -> Iterator[Record]:
    for record in records:
        try:
            yield record.pick(of)
        except KeyError:
            continue
