import pytest

from synthgen.filters.number import number
from synthgen.record import Record


@pytest.mark.parametrize(
    ("field", "value"),
    [(3, 3.0), (-0.5, -0.5), ("7", 7.0), (" 1e3\n", 1000.0), (True, 1.0), (False, 0.0), (0, 0.0)],
)
def test_reads_numbers(field: object, value: float) -> None:
    assert number(Record("r", {}, {"gap": field}).pick("gap")).value == value


@pytest.mark.parametrize("field", ["seven", "", "1,000", None, [1], {"n": 1}, "nan", "inf"])
def test_abstains_from_what_is_none(field: object) -> None:
    measured = number(Record("r", {}, {"gap": field}).pick("gap"))
    assert measured.value is None
    assert "number" in (measured.detail or {})["reason"]
    assert number.null == "drop"
