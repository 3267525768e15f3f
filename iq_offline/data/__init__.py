"""Datasets: episodes and their invariants, formats, catalogue, the packed training table, splits and batches."""
