"""The candidates of `speed updates`, each a process of its own: `python -m benchmarks.yardsticks.NAME`."""
