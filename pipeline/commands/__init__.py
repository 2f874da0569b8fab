"""Commands of `dhs` that are more than one call: each module holds one sub-application."""
