"""Offline imitation learning: a policy and the reward behind it, from recorded demonstrations alone.

    import iq_offline as iq

    run = iq.train("demo/swimmer/expert-v0", method="iq", demos=5)
    print(run.evaluate(episodes=20).return_mean)
    policy = iq.load_policy(run)

The method is IQ-Learn (Garg et al., NeurIPS 2021, arXiv 2106.12142), beside behavioural cloning and other baselines.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iq_offline.api import (
        Comparison,
        Dataset,
        Evaluation,
        Policy,
        RewardComparison,
        Run,
        compare,
        load_dataset,
        load_policy,
        load_run,
        train,
    )
    from iq_offline.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Dataset",
    "Evaluation",
    "Policy",
    "RewardComparison",
    "Run",
    "UserError",
    "compare",
    "load_dataset",
    "load_policy",
    "load_run",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: importing the package loads nothing heavy."""
    if name not in __all__:
        raise AttributeError(f"module 'iq_offline' has no attribute '{name}'")
    value = getattr(import_module("iq_offline.errors" if name == "UserError" else "iq_offline.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
