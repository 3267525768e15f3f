"""Record datasets that anyone can make: demonstrations, and replays of policies."""

PARTS = ("scripted", "atari", "worlds", "noisy-replay", "replay-buffer")
