"""The front end: frames into pixels, pixels into video tokens."""
