"""The program `dhs`. Imports nothing heavy, so that processes which Dask spawns from it do not either."""

from __future__ import annotations

import gc
import importlib
import sys

from pipeline.contracts.errors import PipelineError


def main() -> None:
    """Load the commands and run one; a machine on which they cannot be loaded ends with the error's exit code."""
    # Modules live as long as the process: the collector need not walk through them, now or at the end.
    gc.disable()
    try:
        cli = importlib.import_module("pipeline.cli")
    except PipelineError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
    finally:
        gc.freeze()
        gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
