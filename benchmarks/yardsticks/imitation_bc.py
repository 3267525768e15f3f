"""Behavioural cloning of `imitation`, in its own environment: `BC.train`, its data loader included.

The policy is stable-baselines3's ActorCriticPolicy with 256x256 ReLU networks; its value network, which cloning does
not need, is evaluated by the library all the same.
"""

from .synthetic import ACTION, BATCH, HIDDEN, OBSERVATION, continuous_episodes
from .worker import Measure, counted, serve

AT_ONCE = 20


def build() -> Measure:
    """BC on the synthetic data."""
    import numpy as np
    import torch
    from gymnasium.spaces import Box
    from imitation.algorithms.bc import BC
    from imitation.data.types import Transitions
    from imitation.util.logger import configure
    from stable_baselines3.common.policies import ActorCriticPolicy

    arrays = continuous_episodes().flat()
    count = len(arrays["actions"])
    transitions = Transitions(
        obs=arrays["observations"],
        acts=arrays["actions"],
        infos=np.array([{}] * count),
        next_obs=arrays["next_observations"],
        dones=np.zeros(count, dtype=bool),
    )
    observation_space, action_space = Box(-np.inf, np.inf, (OBSERVATION,)), Box(-1, 1, (ACTION,))
    policy = ActorCriticPolicy(
        observation_space, action_space, lambda _: 1e-3, net_arch=list(HIDDEN), activation_fn=torch.nn.ReLU
    )
    learner = BC(
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(0),
        policy=policy,
        demonstrations=transitions,
        batch_size=BATCH,
        custom_logger=configure(format_strs=[]),
    )

    def updates(number: int) -> float:
        learner.train(n_batches=number, progress_bar=False)
        return float(sum(parameter.sum() for parameter in learner.policy.parameters()))

    return counted(updates, AT_ONCE)


if __name__ == "__main__":
    serve(build)
