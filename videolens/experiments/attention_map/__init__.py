"""Attention maps: what words look at in the video."""
