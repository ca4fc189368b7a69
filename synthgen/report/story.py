"""What is most worth saying of a dataset, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.report.charts import number, share


def story(said: Mapping[str, Any]) -> list[str]:
    """A few sentences, from what `collect` gave."""
    counts = said["counts"]
    judged = counts["kept"] + counts["dropped"] + counts["failed"]
    first = f"{counts['kept']:,} of {judged:,} records are kept ({share(counts['kept'], judged)})"
    if counts["target"]:
        first += f"; the target is {counts['target']:,}"
    sentences = [first + "."]
    worst = sorted(said["funnel"], key=lambda each: -each["dropped"])[:2]
    removed = [f"{each['filter']} removed {each['dropped']:,}" for each in worst if each["dropped"]]
    if removed:
        sentences.append(f"Of the filters {' and '.join(removed)}.")
    if counts["failed"]:
        sentences.append(f"{counts['failed']:,} failed.")
    if counts["pending"]:
        wanted = "rows are wanted still" if counts["target"] else "are pending"
        sentences.append(f"{counts['pending']:,} {wanted}.")
    answer = next((part for part in said["lengths"]["parts"] if part["name"] == "answer"), None)
    if answer:
        quantiles = answer["quantiles"]
        middle = number(quantiles["0.5"])
        spread = f"{number(quantiles['0.05'])} to {number(quantiles['0.95'])}"
        sentences.append(f"Half of the kept answers have up to {middle} words, nine in ten {spread}.")
    languages = said["languages"]["counts"]
    if languages:
        total = sum(each["kept"] for each in languages) + said["languages"]["unsure"]
        top = languages[0]
        sentences.append(
            f"{share(top['kept'], total)} of the kept answers are in the language {top['language']}."
        )
    vendi = next(each for each in said["diversity"]["measures"] if each["key"] == "vendi")
    if vendi["kept"] is not None:
        sample = said["diversity"]["sample"]
        sentences.append(
            f"In meaning {sample:,} of them are as varied as {number(vendi['kept'])} wholly different texts."
        )
    return sentences
