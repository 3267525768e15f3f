"""The stages of the line: configuration and paths in, an artifact out. No mathematics, no printing."""
