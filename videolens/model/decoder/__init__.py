"""The decoder: attention and its kernels, who sees whom, the rows that a forward computes."""
