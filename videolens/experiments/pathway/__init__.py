"""Pathways: what is left of the answers when all other attention is cut, and how one is chosen."""
