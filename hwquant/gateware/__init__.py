"""The Amaranth source of the accelerator, one file a unit."""
