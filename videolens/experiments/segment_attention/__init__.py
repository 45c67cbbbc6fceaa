"""Attention between the segments of a prompt, head by head."""
