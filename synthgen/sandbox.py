"""Jinja in a sandbox for templates that somebody else wrote: no way out of it, and no bombs in it.

Jinja's own sandbox keeps templates from private attributes. Here nothing is global, filters and methods are
allowlisted, and each rendering has a budget of work that every loop, call, filter and output takes from: it
is counted, not timed, so that a template renders, or does not, the same on every machine.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_TEXT = 1_000_000
WORK = 50_000_000  # roughly characters; a second or two
STEP = 50
MAX_BITS = 4096
MAX_PARTS = 10_000

_FILTERS = (
    "abs batch capitalize count d default dictsort escape e filesizeformat first float groupby "
    "indent int items join last length list lower map max min pprint reject rejectattr replace reverse "
    "round select selectattr slice sort string striptags sum title tojson trim truncate unique upper "
    "urlencode wordcount wordwrap"
).split()
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
        "isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip partition "
        "removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper".split()
    ),
    dict: frozenset("get items keys values".split()),
    list: frozenset(["count", "index"]),
    tuple: frozenset(["count", "index"]),
    int: frozenset(["is_integer"]),
    float: frozenset(["is_integer"]),
    bytes: frozenset(),
}


class _Budget(threading.local):
    left: float = float("inf")


_budget = _Budget()


@contextmanager
def budget() -> Iterator[None]:
    """One rendering's budget of work."""
    _budget.left = WORK
    try:
        yield
    finally:
        _budget.left = float("inf")


def _spend(units: float) -> None:
    _budget.left -= units
    if _budget.left < 0:
        raise SecurityError("it does too much work")


def weighed(value: Any, most: float = MAX_TEXT) -> Any:
    """Take a value's size from the budget: characters, and items however deep, shared ones each time."""
    if isinstance(value, str):
        _limit(len(value), most)
        _spend(len(value))
        return value
    weight, inner = 0, [value]
    while inner:
        item = inner.pop()
        weight += len(item) if isinstance(item, str) else 1
        _limit(weight, most)
        if isinstance(item, dict):
            inner.extend(item.values())
        elif isinstance(item, list | tuple | set):
            inner.extend(item)
    _spend(weight)
    return value


def _read(value: Any) -> Any:
    """What is compared or cut is gone through, however large it is."""
    return weighed(value, WORK)


def _limit(size: float, most: float = MAX_TEXT) -> None:
    if size > most:
        raise SecurityError(f"it makes something larger than {most:,} characters")


def _shown(value: Any) -> Any:
    """What `{{ }}` writes. A method is not it: its text holds an address, and was never what was meant."""
    if callable(value) and not isinstance(value, Undefined):
        name = getattr(value, "__name__", "it")
        raise SecurityError(f"{name!r} is a method; a field of that name is reached by ['{name}']")
    return weighed(value)


@pass_context
def _count(_: Any, units: int) -> str:
    _spend(units)
    return ""


class _Counting(NodeTransformer):
    """Makes loops, macros and blocks count what they do, and text grow through `+`, which is watched."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        whole: nodes.Expr = _filtered(node.nodes[0], "string")
        for item in node.nodes[1:]:
            whole = nodes.Add(whole, _filtered(item, "string"), lineno=node.lineno)
        return whole

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filtered(node, "_weigh")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filtered(node, "_weigh")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filtered(node, "_weigh") if node.ctx == "load" else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_read")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_read")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_read")
        return node

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        text = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        text += sum(len(part.data) for part in node.body if isinstance(part, nodes.TemplateData))
        units = nodes.Const(STEP + text, lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(_filtered(units, "_count"), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _counted  # noqa: N815 - jinja's names


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without globals, with allowlists of filters and methods, and with operators that are watched."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        _Counting().visit(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have this attribute."""
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No `format` of text, not even a safe one: its widths make bombs."""

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something, for a price."""
        _spend(5 * STEP)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str | list | tuple):
            _spend(len(owner))
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Work an operator out, unless it would make something huge."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "+":
            if not numbers and hasattr(left, "__len__") and hasattr(right, "__len__"):
                _limit(len(left) + len(right))
            return weighed(super().call_binop(context, operator, left, right))
        if not numbers and operator != "%":
            raise SecurityError(f"{operator} is for numbers alone")
        if operator == "*" and _bits(left) + _bits(right) > MAX_BITS:
            raise SecurityError("the product is too large")
        if operator == "**" and (abs(left) > 10**6 or abs(right) > 64):
            raise SecurityError("the power is too large")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% formatting is not allowed; use {{ }}")
        return super().call_binop(context, operator, left, right)


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 0


def _guard_replace(text: Any, old: Any, new: Any, count: Any = None) -> None:
    found = str(text).count(str(old))
    _limit(len(str(text)) + found * len(str(new)))


def _guard_indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    _limit((str(text).count("\n") + 1) * (width if isinstance(width, int) else len(str(width))))


def _guard_tojson(_: Any, indent: Any = None) -> None:
    if indent is not None and not 0 <= int(indent) <= 16:
        raise SecurityError("an indent of more than 16")


def _guard_parts(_: Any, count: Any = 1, *__: Any, **___: Any) -> None:
    if not 0 < int(count) <= MAX_PARTS:
        raise SecurityError(f"not between 1 and {MAX_PARTS:,} parts")


def _guard_wordwrap(
    text: Any, width: Any = 79, break_long_words: Any = True, wrapstring: Any = "\n", *_: Any, **__: Any
) -> None:
    lines = len(str(text)) / max(int(width), 1) * 2 + str(text).count("\n") + 1
    _limit(len(str(text)) + lines * len(wrapstring or "\n"))


def _guard_round(_: Any, precision: Any = 0, *__: Any, **___: Any) -> None:
    if abs(int(precision)) > 300:
        raise SecurityError("a precision of more than 300")


_GUARDS: Mapping[str, Callable[..., None]] = {
    "replace": _guard_replace,
    "indent": _guard_indent,
    "tojson": _guard_tojson,
    "batch": _guard_parts,
    "slice": _guard_parts,
    "wordwrap": _guard_wordwrap,
    "round": _guard_round,
}


def _watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that weighs what it is given and what it gives back."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    guard = _GUARDS.get(name)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        _spend(STEP)
        given = list(args)
        if hasattr(given[first], "__next__"):  # what `map` and its like give; once is enough for all
            given[first] = list(given[first])
        if not isinstance(given[first], Undefined):
            weighed(given[first], WORK)
            if guard is not None:
                guard(*given[first:], **kwargs)
            if name == "join":
                mark = given[first + 1] if len(given) > first + 1 else kwargs.get("d", "")
                _limit(len(given[first]) * len(str(mark)))
        result = function(*given, **kwargs)
        return weighed(result) if isinstance(result, str | list | tuple | dict) else result

    return watched


def _scored(items: Any, scores: Any) -> tuple[list[Any], list[float]]:
    items, scores = list(items), list(scores)
    if len(items) != len(scores) or not items:
        raise ValueError(f"there are {len(scores)} scores for {len(items)} items")
    if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
        raise TypeError("a score is not a number")
    return items, scores


def _best(items: Any, scores: Any) -> Any:
    """The item with the highest score, the first of several."""
    items, scores = _scored(items, scores)
    return items[scores.index(max(scores))]


def _worst(items: Any, scores: Any) -> Any:
    """The item with the lowest score, the last of several: with two items it is never the best one."""
    items, scores = _scored(items, scores)
    return items[len(scores) - 1 - scores[::-1].index(min(scores))]


def make_environment() -> Sandbox:
    """The environment that all templates are compiled in."""
    env = Sandbox(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    env.globals.clear()
    env.filters = {name: _watched(name, env.filters[name]) for name in _FILTERS if name in env.filters}
    env.filters |= {"best": _watched("best", _best), "worst": _watched("worst", _worst)}
    env.filters["_weigh"] = weighed
    env.filters["_read"] = _read
    env.filters["_count"] = _count
    return env
