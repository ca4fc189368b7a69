from synthgen import filter


@filter(max=0.3)
def shouting(record):
    """Share of an answer's letters that are capitals."""
    letters = [char for char in record.text if char.isalpha()]
    return sum(char.isupper() for char in letters) / max(len(letters), 1)
