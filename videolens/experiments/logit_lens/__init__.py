"""The logit lens on video tokens: the words of every patch in every layer."""
