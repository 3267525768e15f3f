"""Evaluation: simulation, scores and intervals, recovered reward against true reward."""
