"""d3rlpy's algorithms through their public API: d3rlpy_algorithms sac|iql|cql|bc [--sampling].

Updates alone: `update()` on mini-batches that d3rlpy's own buffer sampled beforehand. With --sampling, a mini-batch is
sampled for each update, as `fit` does; `fit`'s logging and progress bar are left out either way. Networks are
d3rlpy's defaults, 256x256 ReLU.
"""

import argparse

from .synthetic import BATCH, CQL_ACTIONS, STEPS, continuous_episodes
from .worker import Measure, counted, serve

AT_ONCE = 4
SAMPLED_BEFORE = 64


def main() -> None:
    """Serve the algorithm that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=("sac", "iql", "cql", "bc"))
    parser.add_argument("--sampling", action="store_true")
    options = parser.parse_args()
    serve(lambda: build(options.algorithm, sampling=options.sampling))


def build(name: str, *, sampling: bool) -> Measure:
    """An algorithm on the synthetic data."""
    import d3rlpy
    import numpy as np

    configs = {
        "sac": d3rlpy.algos.SACConfig(batch_size=BATCH),
        "iql": d3rlpy.algos.IQLConfig(batch_size=BATCH),
        "cql": d3rlpy.algos.CQLConfig(batch_size=BATCH, n_action_samples=CQL_ACTIONS // 3),
        "bc": d3rlpy.algos.BCConfig(batch_size=BATCH),
    }
    arrays = continuous_episodes().flat()
    timeouts = np.arange(1, len(arrays["rewards"]) + 1) % STEPS == 0
    dataset = d3rlpy.dataset.MDPDataset(
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"],
        terminals=arrays["terminations"],
        timeouts=timeouts.astype(np.float32),
    )
    algorithm = configs[name].create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    ready = [dataset.sample_transition_batch(BATCH) for _ in range(SAMPLED_BEFORE)]
    made = 0

    def updates(count: int) -> float:
        nonlocal made
        for _ in range(count):
            batch = dataset.sample_transition_batch(BATCH) if sampling else ready[made % SAMPLED_BEFORE]
            losses = algorithm.update(batch)
            made += 1
        return float(sum(losses.values()))

    return counted(updates, AT_ONCE)


if __name__ == "__main__":
    main()
