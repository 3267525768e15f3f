"""What datasets cost: opening, converting, batches, pictures, and the memory of all that."""

PARTS = ("peers", "large-source", "training-memory", "frames")
