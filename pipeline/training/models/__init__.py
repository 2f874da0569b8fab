"""The networks, one file each; `catalogue.build_network` makes them by name."""
