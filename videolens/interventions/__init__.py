"""Interventions: data that yields hook functions."""
