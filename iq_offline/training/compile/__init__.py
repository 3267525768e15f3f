"""Compiled updates: an update traced, compiled, kept for later runs, captured as a CUDA graph, batched over seeds."""
