"""The report as one file that opens anywhere: styles, script, charts and data within, and nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from synthgen.errors import RunError
from synthgen.export.durable import rename, write_bytes
from synthgen.report import charts
from synthgen.report.plain import shown
from synthgen.report.story import story

ASSETS = resources.files("synthgen.report") / "assets"


def page(said: Mapping[str, Any]) -> str:
    """The HTML of what `collect` gave."""
    rows = said["rows"]["rows"]
    data = {"rows": rows, "points": said["map"]["points"] if said["map"] else []}
    return _render("report.html", {"said": said, "story": story(said)}, data)


def comparison_page(said: Mapping[str, Any]) -> str:
    """The HTML of what `compare` gave."""
    return _render("compare.html", {"said": said}, {"rows": [], "points": []})


def write_page(place: Path, html: str) -> None:
    """Write a page, whole or not at all. Raises RunError where that cannot be done."""
    staged = place.with_name(f".{place.name}.part")
    try:
        write_bytes(staged, html.encode())
        rename(staged, place)
    except OSError as error:
        raise RunError(f"{place} cannot be written: {error.strerror}") from error


def _render(template: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FunctionLoader(lambda name: (ASSETS / f"{name}.j2").read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (ASSETS / "report.css").read_text("utf-8")
    script = (ASSETS / "report.js").read_text("utf-8")
    for name in ("histogram", "pace", "bar", "scatter"):
        draw = getattr(charts, name)
        environment.globals[name] = _marked(draw)
    environment.globals["is_skewed"] = charts.is_skewed
    environment.filters |= {
        "shown": lambda text: Markup(shown(str(text))),  # noqa: S704 - `shown` escapes
        "number": charts.number,
        "share": charts.share,
        "of": charts.share,
        "bounds": _bounds,
        "duration": _duration,
    }
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        **values,
        policy=policy,
        style=Markup(style),  # noqa: S704 - of our own
        script=Markup(script),  # noqa: S704
        data=Markup(_embedded(data)),  # noqa: S704 - without a sign that HTML knows
    )


def _marked(draw: Any) -> Any:
    from markupsafe import Markup

    return lambda *args, **named: Markup(draw(*args, **named))  # noqa: S704 - charts escape what they write


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the script that holds it, and nothing is a line's end to any parser."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bounds(said: Mapping[str, Any]) -> str:
    low, high = said["min"], said["max"]
    if low is not None and high is not None:
        return f"{charts.number(low)} to {charts.number(high)}"
    if high is not None:
        return f"at most {charts.number(high)}"
    return f"at least {charts.number(low)}" if low is not None else "no bound"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
