"""recipe.lock.yaml: everything that took effect in a run, each input with its digest."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import orjson

from synthgen import __version__
from synthgen.chain import describe, without_secrets
from synthgen.digests import file_digest, sha256
from synthgen.engines.base import ModelIdentity
from synthgen.loaded import Loaded
from synthgen.recipe import Recipe
from synthgen.seed_kinds import FileSeed, TaxonomySeed, uses_faker

_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
PACE = frozenset({"concurrency", "max_concurrency"})


def lock(loaded: Loaded, models: Mapping[str, ModelIdentity]) -> dict[str, Any]:
    """What took effect. Holds no time, no address and nothing else of this machine: sessions hold that.

    Nor how many requests go to a server at a time, which changes no answer.
    """
    voices = loaded.voices
    return {
        "synthgen": __version__,
        **locked_recipe(loaded.recipe),
        "seeds": _seeds(loaded),
        "prompts": {name: _prompt(voice.prompt.name, voice.prompt.sha256) for name, voice in voices.items()},
        "sampling": {name: dict(voice.sampling) for name, voice in voices.items()},
        "models": {name or "default": _model(identity) for name, identity in sorted(models.items())},
        "filters": [describe(link) for link in loaded.chain],
        "licences": licences(loaded.recipe),
    }


def _seeds(loaded: Loaded) -> dict[str, Any]:
    """The files that seeds come from, and the libraries and the tokenizer that made rows of them."""
    found: dict[str, Any] = {}
    for name, rows in loaded.files.items():
        found[name] = {"rows": len(rows), "files": rows.digests()}
        if rows.readers:
            found[name]["reader"] = rows.readers
        if rows.tokenizer is not None:
            found[name]["tokenizer"] = file_digest(rows.tokenizer)
    for name, paths in loaded.drawn_from.items():
        files = {loaded.project.relative(path): file_digest(path) for path in paths}
        size = loaded.plan.choices[name].size
        found[name] = {**({} if size is None else {"rows": size}), "files": files}
    for name, spec in loaded.recipe.seeds.items():
        if uses_faker(spec):
            found.setdefault(name, {"files": {}})["reader"] = [f"faker {version('faker')}"]
    return found


def licences(recipe: Recipe) -> list[str]:
    """What the recipe says of its sources' licences, each once; empty where it says nothing."""
    files = [seed for seed in recipe.seeds.values() if isinstance(seed, FileSeed | TaxonomySeed)]
    return sorted({seed.licence for seed in files if seed.licence})


def locked_recipe(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says, with the digest of that."""
    effective = recipe.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    for model in (effective.get("model"), *effective.get("models", {}).values()):
        if isinstance(model, dict):
            model.pop("base_url", None)
            options = {name: value for name, value in model.get("options", {}).items() if name not in PACE}
            model.pop("options", None)
            if options:
                model["options"] = options
    if "filters" in effective:
        for entry, said in zip(effective["filters"], recipe.filters, strict=True):
            for name, use in said.items() if isinstance(said, dict) else ():
                set_ = use.model_dump(exclude_unset=True)  # a bound that is null takes the filter's own away
                entry[name] |= {key: None for key in ("min", "max") if key in set_ and set_[key] is None}
        effective["filters"] = without_secrets(effective["filters"])
    return {"recipe": effective, "recipe_sha256": recipe_sha256(effective)}


def recipe_sha256(effective: Mapping[str, Any]) -> str:
    """The digest of what a recipe says."""
    return sha256(orjson.dumps(effective, option=orjson.OPT_SORT_KEYS))


def _prompt(name: str, digest: str) -> dict[str, str]:
    return {"name": name, "sha256": digest}


def _model(identity: ModelIdentity) -> dict[str, Any]:
    return {
        "engine": identity.engine,
        "id": identity.id,
        "revision": identity.revision,
        "weights": identity.weights,
        "chat_template": identity.chat_template,
    }


def fingerprint(locked: Mapping[str, Any]) -> str:
    """Digest of everything a dataset depends on: two runs with the same one need no second run."""
    return sha256(orjson.dumps(locked, option=orjson.OPT_SORT_KEYS))


def derived_fingerprint(base: int, locked: Mapping[str, Any]) -> str:
    """Digest of everything that a version depends on which was made from the version `base`."""
    return sha256(orjson.dumps([base, locked], option=orjson.OPT_SORT_KEYS))


def locked_as(digest: str, locked: Mapping[str, Any], bases: Iterable[int]) -> bool:
    """Whether that is the fingerprint of this lock: of a version that `run` made, or one made from `bases`.

    Where a budget in seconds or money ended it, the lock has that as `cut`, which was not known at its begin.
    """
    begun = {name: value for name, value in locked.items() if name != "cut"}
    return digest == fingerprint(begun) or any(
        digest == derived_fingerprint(base, said) for base in bases for said in (begun, locked)
    )


def lock_yaml(locked: Mapping[str, Any]) -> bytes:
    """The lock as YAML, which gives back every character."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Line breaks of other alphabets are escaped: in any other style they come back as `\\n`."""

        def represent_str(self, data: str) -> Any:
            style = '"' if not _BREAKS.isdisjoint(data) else None
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Representer.add_representer(str, Representer.represent_str)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(orjson.loads(orjson.dumps(locked)), out)
    return out.getvalue().encode()
