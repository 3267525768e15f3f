"""Conservative regularisers: pure functions of tensors and numbers, each to be minimised, each off at weight 0."""
