"""Models: a converted VideoLLM with TransformerLens' hook points."""
