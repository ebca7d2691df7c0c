"""One verb as a command line: its options are made from its typed fields."""

from __future__ import annotations

import keyword
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ddrep.cli.base import Verb
from ddrep.config import explain
from ddrep.errors import UserError


class Base(BaseSettings):
    """Labelled training images from an unconditional diffusion model."""

    model_config = SettingsConfigDict(
        cli_prog_name="ddrep",
        cli_enforce_required=False,
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_: Any, **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line alone: an environment variable that happens to be named as a verb (DATA) means nothing."""
        return (sources["init_settings"],)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def repeated(args: list[str]) -> list[str]:
    """`--configfile a b`, which is how Snakemake takes several, as `--configfile a --configfile b`."""
    found, last = list[str](), ""
    for word in args:
        if last == "--configfile" and found[-1] != last and not word.startswith("-"):
            found.append(last)
        last = word if word.startswith("-") else last
        found.append(word)
    return found


def call(name: str, verb: type[Verb], args: list[str]) -> None:
    """Run the verb that `args` begins with. Raises UserError, in one line, where they are wrong."""
    try:
        CliApp.run(command(name, verb), cli_args=repeated(args))
    except ValidationError as e:
        of_verb = [error["loc"] for error in e.errors() if error["type"] == "missing" and len(error["loc"]) == 2]
        if missing := ", ".join(f"--{str(option).replace('_', '-')}" for _, option in of_verb):
            raise UserError(f"{name}: {missing} missing; ddrep {name} --help says what is expected") from None
        raise UserError(explain(e)) from None
    except SettingsError as e:
        raise UserError(" ".join(str(e).split()).split(" usage: ")[0]) from None


def command(name: str, verb: type[Verb]) -> type[Base]:
    """`ddrep` with this verb alone."""
    kind = CliSubCommand[verb]  # type: ignore[valid-type]
    field = name.replace("-", "_")
    fields: dict[str, Any] = (
        {f"{field}_": (kind, Field(alias=name))} if keyword.iskeyword(field) else {field: (kind, ...)}
    )
    return create_model("Ddrep", __doc__=Base.__doc__, __base__=Base, **fields)
