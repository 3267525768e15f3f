"""What the rational tanh of compiled updates saves: it beside torch's own, both compiled, CPU microseconds a call.

python benchmarks/tanh.py --rounds 5

One layer of a batch, 256x256; rounds are interleaved; the product of that layer stands beside them for scale.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from iq_offline.training.arithmetic import rational_tanh

CALLS = 2000


def main() -> None:
    """Compile both, time them in turn and print medians with the least and the greatest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    layer = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    candidates: dict[str, Callable[[Tensor], Tensor]] = {
        "torch.tanh": torch.compile(torch.tanh),
        "rational_tanh": torch.compile(rational_tanh),
        "product": lambda x: x @ layer,
    }
    for function in candidates.values():
        function(layer)
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(options.rounds):
        for name, function in candidates.items():
            taken[name].append(_microseconds(function, layer))
    for name, times in taken.items():
        print(f"{name}: {statistics.median(times):.0f} ({min(times):.0f}-{max(times):.0f}) microseconds")
    ratios = [own / ours for own, ours in zip(taken["torch.tanh"], taken["rational_tanh"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def _microseconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        function(x)
    return (time.process_time() - begun) / CALLS * 1e6


if __name__ == "__main__":
    main()
