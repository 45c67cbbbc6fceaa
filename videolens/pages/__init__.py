"""Pages: a demonstration, one's own clip, and what they write."""
