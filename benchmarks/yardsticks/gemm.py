"""This machine's limit: single-precision matrix products of torch on one thread, at the shapes that an update has."""

import time

from .worker import Measure, Reply, serve

SHAPES = {
    "512x256x256": (512, 256, 256),
    "256x256x256": (256, 256, 256),
    "256x512x256": (256, 512, 256),
    "7680x256x256": (7680, 256, 256),
    "512x23x256": (512, 23, 256),
    "32x64x64": (32, 64, 64),
}
"""(rows, m, n) of (rows, m) by (m, n): hidden layers of one and of two batches, a weights' gradient, the hidden layer
of 30 sampled actions, a first layer, and a small network's hidden layer."""
FIRST_SHARE = 0.5
"""Of the seconds: the first shape is the limit that shares are taken of; the others have the rest."""
AT_ONCE_MFLOP = 1000.0


def build() -> Measure:
    """GFLOP a CPU second of each shape."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def rate(shape: tuple[int, int, int], seconds: float) -> tuple[float, int, float]:
        rows, m, n = shape
        left, right = torch.randn(rows, m, generator=generator), torch.randn(m, n, generator=generator)
        out = torch.empty(rows, n)
        at_once = max(1, int(AT_ONCE_MFLOP / (2e-6 * rows * m * n)))
        started, made, spent = time.process_time(), 0, 0.0
        while made == 0 or spent < seconds:
            for _ in range(at_once):
                torch.mm(left, right, out=out)
            made += at_once
            spent = time.process_time() - started
        return 2e-9 * rows * m * n * made / spent, made, spent

    def measure(seconds: float) -> Reply:
        first, rest = FIRST_SHARE * seconds, (1 - FIRST_SHARE) * seconds / (len(SHAPES) - 1)
        found = {name: rate(shape, first if k == 0 else rest) for k, (name, shape) in enumerate(SHAPES.items())}
        return {
            "updates": sum(made for _, made, _ in found.values()),
            "cpu_seconds": sum(spent for *_, spent in found.values()),
            "loss": 0.0,
            "gflop_per_second": {name: gflops for name, (gflops, *_) in found.items()},
        }

    return measure


if __name__ == "__main__":
    serve(build)
