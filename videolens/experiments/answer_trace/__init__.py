"""Answer traces: the probability of every option after each layer."""
