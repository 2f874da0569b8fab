"""The science in the order it happens: xr.Dataset in, xr.Dataset out; no IO, no cluster."""
