"""`dhs models`: the networks that can be trained."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.driver.programs import run_module

_TIMEOUT_S = 3600.0


def models_command(
    batch_size: Annotated[int, typer.Option(min=1, help="stamps of a batch")] = 16,
    size_px: Annotated[int, typer.Option("--size-px", min=16, help="side of a stamp")] = 64,
    bands: Annotated[int, typer.Option(min=1, help="bands of a stamp")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="threads on a CPU")] = 1,
    seconds: Annotated[float, typer.Option(min=0.0, help="how long each rate is measured")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """List the networks: training.network.name, parameters, stamps per second of training and of scoring.

    Measures on the GPU if there is one, else on the CPU, with random stamps of the published widths. Needs torch.
    """
    options = {"batch-size": batch_size, "size-px": size_px, "bands": bands, "threads": threads, "seconds": seconds}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run_module("pipeline.training.models_table", (*given, *(("--json",) if as_json else ())), _TIMEOUT_S)
