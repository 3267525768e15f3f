"""The seeds that a benchmark is asked for."""


def seeds_of(text: str) -> list[int]:
    """`0-2` or `0,3` as numbers."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(part) for part in text.split(",")]
