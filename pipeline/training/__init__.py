"""The GPU program, `python -m pipeline.training`: reads a published training cube, needs no dask."""
