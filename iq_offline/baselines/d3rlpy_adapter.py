"""The one home of d3rlpy: its IQL, TD3+BC and CQL, trained by its public `update` on our batches.

This module supplies the minibatches (true successors; a truncation is no termination), the scaling of observations and
actions and the seed, and takes the policy out as plain weights. d3rlpy sees one-step transitions already scaled.
"""

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, named
from iq_offline.algorithms.noise import Stream
from iq_offline.batch import Batch
from iq_offline.config.base import ActionHead, Activation
from iq_offline.config.baselines import RewardLabelledConfig, Trainer
from iq_offline.data.spaces import ContinuousActions
from iq_offline.errors import PackageMissing
from iq_offline.training.learnt import Data

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RewardedBatch(Batch):
    """A batch with rewards, (B,)."""

    rewards: Tensor


class D3rlpyLearner:
    """An algorithm of d3rlpy, on the CPU, behind the interface of our learners; its policies are on `device`.

    d3rlpy draws its random numbers from a stream of the seed; the process's own generator is left as it was.
    Raises PackageMissing without d3rlpy.
    """

    def __init__(self, config: RewardLabelledConfig, seed: int, data: Data, device: torch.device) -> None:
        assert isinstance(data.space, ContinuousActions)
        self._d3rlpy, self._prefix, self._device = load_d3rlpy(), config.trainer.value, device
        scale = ActionScale.of_bounds(data.space.low, data.space.high)
        self._blank = ContinuousPolicy(
            data.spec(seed).standardiser,
            scale,
            config.hidden_sizes,
            Activation.RELU,
            head=ActionHead.TANH_GAUSSIAN,
            layout=data.expert.layout,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([seed, Stream.POLICY]).generate_state(1)[0]))
            self._algorithm = _algorithm(self._d3rlpy, config)
            self._algorithm.create_impl((self._blank.layout.features,), len(scale.centre))
            self._random = torch.get_rng_state()
        self._latest: dict[str, float] = {}

    @property
    def policy(self) -> ContinuousPolicy:
        """A copy of the present deterministic policy: hidden layers, then means that tanh squashes; no deviations."""
        policy, trained = copy.deepcopy(self._blank), self._algorithm.impl.policy
        spread = getattr(trained, "_logstd", None)  # a layer of a stochastic policy such as CQL's
        linear = [module for module in trained.modules() if isinstance(module, nn.Linear) and module is not spread]
        layers = [layer for layer in policy.network if isinstance(layer, nn.Linear)]
        for layer, own in zip(layers, linear, strict=True):
            layer.load_state_dict(own.state_dict())
        return policy.eval().requires_grad_(False).to(self._device)

    def update(self, batch: Batch) -> Metrics:
        """One step of d3rlpy on a RewardedBatch; metrics under d3rlpy's own names, behind the trainer's.

        An actor that is not updated at every step keeps its last loss.
        """
        assert isinstance(batch, RewardedBatch)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            self._latest |= self._algorithm.update(minibatch(batch, self._blank))
            self._random = torch.get_rng_state()
        return {f"{self._prefix}_{name}": torch.tensor(value) for name, value in self._latest.items()}

    def diagnostics(self, batch: Batch) -> Metrics:
        """Mean Q of the batch's transitions; how far the executed actions are from the recorded ones."""
        values = self._algorithm.predict_value(*scaled(batch, self._blank))
        with torch.no_grad():
            error = self.policy.to("cpu").action_error(batch)
        return {"q": torch.tensor(float(values.mean())), "action_error": error}

    def tensors(self) -> dict[str, Tensor]:
        """The policy and d3rlpy's own networks, targets included."""
        found = named("policy", self.policy)
        for name, module in vars(self._algorithm.impl.modules).items():
            if isinstance(module, nn.Module):
                found |= named(f"{self._prefix}.{name}", module)
        return found


def load_d3rlpy() -> Any:
    """The package, without the banner that the `gym` which it imports prints. Raises PackageMissing."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            import d3rlpy
    except ImportError:
        raise PackageMissing("this baseline is trained by d3rlpy", "run: pip install 'iq-offline[baselines]'") from None
    return d3rlpy


def scaled(batch: Batch, scale: ContinuousPolicy) -> tuple[Array, Array]:
    """Observations and actions, scaled as that policy's are."""
    return scale.standardise(batch.observations).numpy(), scale.scale_actions(batch.actions).numpy()


def minibatch(batch: RewardedBatch, scale: ContinuousPolicy) -> Any:
    """A batch as d3rlpy's `update` takes it, scaled as that policy's observations and actions are."""
    observations, actions = scaled(batch, scale)
    return load_d3rlpy().dataset.TransitionMiniBatch(
        observations=observations,
        actions=actions,
        rewards=batch.rewards.numpy()[:, None],
        next_observations=scale.standardise(batch.next_observations).numpy(),
        next_actions=np.zeros_like(actions),  # read by SARSA-like algorithms alone
        terminals=batch.terminations.numpy()[:, None],
        intervals=np.ones((len(actions), 1), dtype=np.float32),
        transitions=[],
    )


def _algorithm(d3rlpy: Any, config: RewardLabelledConfig) -> Any:
    """By d3rlpy's public configuration, on the CPU."""
    units = list(config.hidden_sizes)
    plain = d3rlpy.models.VectorEncoderFactory(units, activation="relu")
    normed = d3rlpy.models.VectorEncoderFactory(units, activation="relu", use_layer_norm=config.critic_layer_norm)
    shared: dict[str, Any] = {
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "tau": config.polyak_rate,
        "actor_encoder_factory": plain,
        "critic_encoder_factory": normed,
    }
    if config.trainer is Trainer.IQL:
        falling = d3rlpy.optimizers.CosineAnnealingLRFactory(T_max=config.updates)
        schedule = falling if config.iql.actor_cosine else None
        made = d3rlpy.algos.IQLConfig(
            actor_optim_factory=d3rlpy.optimizers.AdamFactory(lr_scheduler_factory=schedule),
            actor_learning_rate=config.iql.learning_rate,
            critic_learning_rate=config.iql.learning_rate,
            expectile=config.iql.expectile,
            weight_temp=config.iql.inverse_temperature,
            max_weight=config.iql.max_weight,
            value_encoder_factory=normed,
            **shared,
        )
    elif config.trainer is Trainer.CQL:
        made = d3rlpy.algos.CQLConfig(
            actor_learning_rate=config.cql.actor_learning_rate,
            critic_learning_rate=config.cql.critic_learning_rate,
            conservative_weight=config.cql.weight,
            n_action_samples=config.cql.actions,
            alpha_learning_rate=0.0,  # d3rlpy would learn a factor of the weight: left at 1
            **shared,
        )
    else:
        made = d3rlpy.algos.TD3PlusBCConfig(
            actor_learning_rate=config.td3bc.learning_rate,
            critic_learning_rate=config.td3bc.learning_rate,
            alpha=config.td3bc.q_scale,
            **shared,
        )
    return made.create(device=False)
