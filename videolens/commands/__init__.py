"""One file per command: its options (`add`), and what it does, which imports heavy packages when it runs."""
