"""A pathway that only computes what it leaves: which rows and keys, and running them."""
