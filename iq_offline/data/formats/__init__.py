"""One file a format; `detect` finds the one that a path is in."""
