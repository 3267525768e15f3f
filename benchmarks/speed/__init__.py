"""Updates and evaluation a CPU second, beside peers."""

PARTS = ("updates", "evaluation", "check")
