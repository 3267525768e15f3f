"""Transitions that no dataset holds: acting in environments, and the replay that grows with it."""
