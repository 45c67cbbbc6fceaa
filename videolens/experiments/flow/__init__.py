"""Flow maps: cut every route in every window of layers."""
