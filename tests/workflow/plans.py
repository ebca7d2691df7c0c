"""What Snakemake plans, asked many times: a process that forks for each question, so that imports are paid once.

Usage: python plans.py [unchecked] < questions.json > answers.json, in the folder of the workflow. A question is a list
of arguments beside --summary; its answer is the exit status, and the summary (a table with tabs) or the complaint.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile


def ask(arguments: list[str]) -> tuple[int, str]:
    from snakemake.cli import main

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            status = 1
            try:
                main(["--cores", "2", "--summary", *arguments])
            except SystemExit as e:
                status = int(e.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stream = err if status else out
        stream.seek(0)
        return status, stream.read().decode()


if __name__ == "__main__":
    import snakemake.cli  # noqa: F401 - before the forks, once

    if sys.argv[1:] == ["unchecked"]:
        sys.path.insert(0, os.path.dirname(__file__))
        importlib.import_module("unchecked").unchecked()
    sys.argv = ["snakemake"]
    json.dump([ask(question) for question in json.load(sys.stdin)], sys.stdout)
