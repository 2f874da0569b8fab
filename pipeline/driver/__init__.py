"""The Dask program: the only place where stages meet storage."""
