"""The verb that writes config.yaml."""

from __future__ import annotations

from ddrep.cli.base import Light
from ddrep.cli.outputs import OutputFile
from ddrep.config.writing import config_yaml
from ddrep.files import written_whole


class Config(Light):
    """Print config.yaml as it comes: every setting at its default, with what it means."""

    out: OutputFile | None = None
    """File to write, instead of standard output."""

    def run(self) -> None:
        if not self.out:
            print(config_yaml(), end="")
            return
        with written_whole(self.out) as (draft,):
            draft.write_text(config_yaml(), encoding="utf-8")
