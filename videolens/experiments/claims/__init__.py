"""The paper's claims, judged by flow maps."""
