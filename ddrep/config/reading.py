"""config.yaml and its overlays, merged and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ddrep.config.base import merge
from ddrep.config.experiment import Experiment
from ddrep.errors import UserError


def parse(raw: dict[str, Any], where: str = "config") -> Experiment:
    """A merged configuration -> Experiment. Raises UserError naming every key that is wrong, in one line."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{where}: {explain(e)}") from None


def explain(error: ValidationError) -> str:
    """All complaints of a ValidationError in one line: `key: what was expected, got what`."""
    return "; ".join(_complaint(dict(item)) for item in error.errors())


def _complaint(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(whole)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or see config.yaml for the names"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}"


def load(*files: Path) -> Experiment:
    """The experiment of config.yaml and the overlays after it. Raises UserError."""
    raw: dict[str, Any] = {}
    for path in files:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such configuration file") from None
        except UnicodeDecodeError as e:
            raise UserError(f"{path}: not UTF-8 at byte {e.start}; save it as UTF-8") from None
        except (yaml.YAMLError, ValueError) as e:  # of dates and numbers that are none
            raise UserError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a table of settings")
        raw = merge(raw, content)
    return parse(raw, " + ".join(map(str, files)))
