"""Reading a configuration from YAML, with errors that name every bad key at once."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.contracts.config import RunConfig
from pipeline.contracts.density_csv import inline_tables
from pipeline.contracts.errors import ConfigError
from pipeline.contracts.sampling import BinsTarget, GridTarget, LogUniformTarget, TableTarget

_TARGETS: dict[str, type[BaseModel]] = {
    "bins": BinsTarget,
    "loguniform": LogUniformTarget,
    "table": TableTarget,
    "grid": GridTarget,
}

Config = TypeVar("Config", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping in which a key occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key written twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The RunConfig of a YAML file; see load_config_as."""
    return load_config_as(RunConfig, path, overrides)


def load_config_as(model: type[Config], path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` overrides, inline the CSV files of tables, validate.

    Raises:
        ConfigError: unreadable file, bad YAML, or every violation at once, each with its key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {path} is not UTF-8: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config file {path}: expected a mapping of sections, got {type(content).__name__}")
    for override in overrides:
        _apply_override(content, override)
    return _validate(model, inline_tables(content, Path(path).parent), where=str(path))


def build_config(content: dict[str, Any], overrides: Sequence[str], where: str) -> RunConfig:
    """Apply `section.key=value` overrides to a mapping, which they change, and validate it; errors as `load_config`."""
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content, where)


def parse_config(content: dict[str, Any], where: str) -> RunConfig:
    """Validate a mapping; `where` names its source in errors."""
    return _validate(RunConfig, content, where)


def _validate(model: type[Config], content: dict[str, Any], where: str) -> Config:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(model, item) for item in error.errors())) from error


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set expects section.key=value, got {override!r}")
    *parents, leaf = key.split(".")
    node = content
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {parent!r} is a value, not a section")
    try:
        node[leaf] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {key}: {value!r} is not YAML: {error}") from error


def _explain(root: type[BaseModel], item: Any) -> str:
    location = ".".join(str(part) for part in item["loc"] if part not in _TARGETS)
    if item["type"] == "extra_forbidden":
        known = _known_keys(root, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else f", known keys: {', '.join(sorted(known))}"
        return f"unknown key {location!r}{hint}"
    if item["type"] == "missing":
        return f"missing key {location!r}"
    return f"{location or 'config'}: {item['msg']} (got {item['input']!r})"[:500]


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            found = _models_in(field.annotation)
            model = found[0] if found else model
        else:
            model = _TARGETS.get(str(part), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for arg in get_args(annotation) for model in _models_in(arg)]
