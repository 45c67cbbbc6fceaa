"""Accuracy: which option a model picks, under conditions that take its time away."""
