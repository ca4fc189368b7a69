from synthgen.filters.characters import characters
from synthgen.record import Record


def test_counts_code_points() -> None:
    for text, expected in {"": 0, "abc": 3, "a b\n": 4, "日本語": 3, "e\u0301": 2}.items():
        assert characters(Record("r", {}, {}, text)) == expected


def test_measures_what_of_picks() -> None:
    record = Record("r", {"topic": "tea"}, {"messages": [{"role": "assistant", "content": "Green tea."}]})
    assert characters(record.pick("answer")) == len("Green tea.")
    assert characters(record.pick("topic")) == len("tea")
    assert (characters.min, characters.max) == (None, None)
