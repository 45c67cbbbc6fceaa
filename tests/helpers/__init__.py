"""What tests share: tiny models, clips and checkpoints in the real formats, and comparisons."""
