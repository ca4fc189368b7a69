import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.filters.words import words
from synthgen.record import Record


def count(text: str) -> int:
    return words(Record("r", {}, {}, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("   \n\t ", 0),
        ("Yes.", 1),
        ("The quick brown fox", 4),
        ("It's well-known, isn't it?", 4),
        ("- one\n- two\n* three\n1. four", 5),  # the number of an item is a word, its bullet is not
        ("this — that … and ***", 3),
        ("a = b + 1", 3),
        ("https://example.org/a/b is a link", 4),
        ("Änderungen über Straßen", 3),
        ("не имеет значения", 3),
        ("한국어는 띄어쓰기를 합니다", 3),
        ("हिन्दी में लिखा वाक्य", 4),
        ("我喜欢学习", 5),
        ("我用 Python 写代码。", 6),
        ("iPhone手机", 3),
        ("東京タワーに行きました。", 11),
        ("「はい」", 2),
        ("👍 🎉", 0),
    ],
)
def test_counts(text: str, expected: int) -> None:
    assert count(text) == expected


def test_thai_is_estimated_near_the_number_of_its_words() -> None:
    # ภาษา|ไทย|เป็น|ภาษา|ที่|มี|ระดับ|เสียง and วันนี้|อากาศ|ดี|มาก|เรา|จึง|ไป|เดินเล่น|ใน|สวน
    assert 6 <= count("ภาษาไทยเป็นภาษาที่มีระดับเสียง") <= 10
    assert 8 <= count("วันนี้อากาศดีมากเราจึงไปเดินเล่นในสวน") <= 12


@given(st.text(max_size=200), st.text(max_size=200))
def test_texts_put_side_by_side_have_as_many_words_as_both(one: str, other: str) -> None:
    assert count(f"{one}\n{other}") == count(one) + count(other)


def test_bounds_come_from_the_recipe() -> None:
    assert (words.min, words.max) == (None, None)
    assert words.parameters == {}


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=200))
def test_ascii_text_is_counted_as_any_other(text: str) -> None:
    assert count(text) + 1 == count(f"{text} é")
