"""The filters that ship, one a file. Imports as `synthgen.filters`."""

if __name__ != "synthgen.filters":
    raise ImportError(f"import this package as synthgen.filters, not as {__name__}")
