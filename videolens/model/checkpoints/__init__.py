"""Checkpoints on disk: finding their files, reading their weights, converting and checking them."""
