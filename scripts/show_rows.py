"""Show the first rows of a run's dataset and where everything is: `show_rows.py runs/NAME 3`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import jsonlines


def main(run: Path, count: int) -> None:
    """Print `count` rows, what was dropped by which filter, and the files."""
    with jsonlines.open(run / "dataset" / "train.jsonl") as rows:
        for number, row in enumerate(rows, 1):
            if number > count:
                break
            print(f"\nrow {number}  {row['id']}")
            for message in row["messages"]:
                print(f"  {message['role']:>9}  {message['content']}")
    with jsonlines.open(run / "dropped.jsonl") as rows:
        why = Counter(row["dropped_by"]["filter"] for row in rows)
    print("\ndropped  " + (", ".join(f"{name} {n}" for name, n in why.most_common()) or "nothing"))
    print(f"dataset  {run}/dataset")
    print(f"why each row was dropped  {run}/dropped.jsonl")
    print(f"every request, answer and measurement  {run}/run.sqlite")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
