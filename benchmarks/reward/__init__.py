"""How good is a recovered reward? Against true rewards, and for offline reinforcement learning."""

PARTS = ("recovery", "relabelled")
