"""Every byte in or out: locations, survey bricks, cubes, tables, receipts, run records."""
