"""Training: batches from the table, the loop as a generator, and the run folder's tensors."""
