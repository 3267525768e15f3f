"""Export: a policy as one file that runs without this package, checked against the original."""
