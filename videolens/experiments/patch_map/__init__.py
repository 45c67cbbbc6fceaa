"""Patch maps: copy activations from another run, everywhere."""
