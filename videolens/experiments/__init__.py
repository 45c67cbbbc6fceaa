"""Experiments: one file per question asked of a model, each returning one frozen result."""
