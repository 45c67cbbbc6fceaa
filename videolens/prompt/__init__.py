"""Prompts: a question laid out as tokens, and what every position is."""
