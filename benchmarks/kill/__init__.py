"""Kill commands at random moments: no broken file, and the next run goes on."""

PARTS = ("data", "training")
