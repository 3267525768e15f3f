"""What the methods for continuous actions share: an actor, critics with a slow target, and their soft values."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from iq_offline.algorithms.adam import Adam, Changed, SlowCopy, descend
from iq_offline.algorithms.distributions import ContinuousActionDistribution
from iq_offline.algorithms.losses import (
    Metrics,
    Regulariser,
    actor_loss,
    bootstrap,
    bounded,
    implicit_reward,
    regularised,
)
from iq_offline.algorithms.networks import ContinuousPolicy, CriticEnsemble, named, pessimistic
from iq_offline.algorithms.noise import Drawn, Noise, normal, symmetric
from iq_offline.batch import Batch
from iq_offline.config.q_learning import ActorCriticConfig


@dataclass(frozen=True)
class PolicyActions:
    """Actions sampled from the policy, scaled, (B, A), and c(s), (B,), in V(s) = Q(s, a) - temperature * c(s)."""

    actions: Tensor
    entropy_cost: Tensor

    def detached(self) -> "PolicyActions":
        """Without a gradient."""
        return PolicyActions(self.actions.detach(), self.entropy_cost.detach())


class Entropy(Protocol):
    """Samples a policy's actions from standard normal numbers `drawn`, (B, A), and computes their entropy cost."""

    @property
    def name(self) -> str:
        """Name of the mean cost in the metrics."""
        ...

    def __call__(self, policy: ContinuousActionDistribution, observations: Tensor, drawn: Tensor) -> PolicyActions: ...


@dataclass(frozen=True)
class PriorEntropy:
    """Entropy relative to a prior: the cost is KL(policy || prior) in closed form, nats. Source: [CSIL23]."""

    prior: ContinuousPolicy
    name: str = "kl_to_prior"

    def __call__(self, policy: ContinuousActionDistribution, observations: Tensor, drawn: Tensor) -> PolicyActions:
        with torch.no_grad():
            prior = self.prior.distribution(observations)
        return PolicyActions(policy.sample(drawn), policy.kl(prior))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SampledEntropy:
    """Entropy relative to the uniform density: the cost is log pi(a | s) of the drawn action. Source: [SAC18]."""

    name: str = "entropy_cost"

    def __call__(self, policy: ContinuousActionDistribution, observations: Tensor, drawn: Tensor) -> PolicyActions:
        del observations
        return PolicyActions(*policy.sample_with_log_prob(drawn))


@dataclass(frozen=True)
class Regularisers:
    """Regularisers of the critics' loss, which take `CriticInputs`, and of the actor's, which take policy and batch."""

    critic: Sequence[Regulariser] = ()
    actor: Sequence[Regulariser] = ()


@dataclass(frozen=True)
class CriticInputs:
    """What a regulariser of the critics can use. `batch`: raw, with the supplementary transitions, where there are any.

    `observations`: the expert's, standardised, (B, D); `actions`: the expert's, scaled, (B, A), requiring a gradient;
    `q`: each critic's Q there, (N, B); `policy_actions`: sampled at those observations, scaled, (B, A), or None.
    """

    policy: ContinuousPolicy
    critic: CriticEnsemble
    batch: Batch
    observations: Tensor
    actions: Tensor
    q: Tensor
    policy_actions: Tensor | None
    noise: Noise

    def draw_actions(self, observations: Tensor) -> Tensor:
        """Actions of the policy at raw observations, without a gradient, (B, A)."""
        with torch.no_grad():
            distribution = self.policy.distribution(observations)
            return distribution.sample(normal(self.noise, distribution.mean))


@dataclass(frozen=True)
class TransitionValues:
    """Values of B transitions by N critics, flattened critic by critic, (N B,); N = 1 for discrete actions."""

    q: Tensor
    v: Tensor
    next_v: Tensor
    discounts: Tensor

    @property
    def rewards(self) -> Tensor:
        """Recovered rewards, (N B,)."""
        return implicit_reward(self.q, self.next_v, self.discounts)

    def means(self, source: str) -> Metrics:
        """Mean Q, V and reward, under the source's name."""
        found = {"q": self.q, "value": self.v, "reward": self.rewards}
        return {f"{source}_{name}": values.mean() for name, values in found.items()}


class ActorCritic(ABC):
    """Networks, optimisers, target and soft values for continuous actions; each method adds its own `update`."""

    absorbing_value: Tensor | float | None = None
    """Value after a termination; None: zero, as in [IQ21]."""
    reward_bounds: tuple[float, float] | None = None
    """Least and greatest recovered reward, where a method knows them."""

    @property
    def recovery_absorbing_value(self) -> Tensor | float | None:
        """Value after a termination, for recovering rewards."""
        return self.absorbing_value

    def __init__(
        self,
        config: ActorCriticConfig,
        policy: ContinuousPolicy,
        critic: CriticEnsemble,
        noise: torch.Generator,
        entropy: Entropy,
        regularisers: Regularisers,
    ) -> None:
        self.config, self.policy, self.critic, self.entropy = config, policy, critic, entropy
        self.regularisers = regularisers
        self.noise: Noise | None = Drawn(noise)
        self.target_critic, self.target = critic, None
        self.modules: dict[str, nn.Module] = {"policy": policy, "critic": critic}
        if isinstance(entropy, PriorEntropy):
            self.modules["prior"] = entropy.prior.requires_grad_(False)
        if config.polyak_rate is not None:
            self.target_critic = copy.deepcopy(critic).requires_grad_(False)
            self.modules["target_critic"] = self.target_critic
            self.target = SlowCopy([self.target_critic], [critic], config.polyak_rate)
        self.actor_optimiser = Adam([policy], config.actor_learning_rate, config.actor_weight_decay, config.updates)
        self.critic_optimisers = [
            Adam([critic], config.critic_learning_rate, config.critic_weight_decay, config.updates)
        ]
        self.adams = [*self.critic_optimisers, self.actor_optimiser]

    @property
    def changed(self) -> list[Changed]:
        """The optimisers, whose parameters an update changes, and the target critics."""
        return [*self.adams, *([] if self.target is None else [self.target])]

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of all networks, named NETWORK.PARAMETER."""
        return {key: tensor for name, module in self.modules.items() for key, tensor in named(name, module).items()}

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One update of all that is learnt; returns metrics as scalars."""

    def policy_actions(self, batch: Batch, noise: Noise | None = None) -> PolicyActions:
        """Actions of the policy at a batch's observations, with a gradient to the policy."""
        return self._draw(batch.observations, noise or self.drawing)

    def soft_value(
        self, observations: Tensor, critic: CriticEnsemble, noise: Noise, drawn: PolicyActions | None = None
    ) -> Tensor:
        """V(s) = Q(s, a) - temperature * entropy cost by each critic, (N, B), at raw observations.

        `drawn`: the policy's actions a; None: sampled here, without a gradient.
        """
        if drawn is None:
            with torch.no_grad():
                drawn = self._draw(observations, noise)
        q: Tensor = critic(self.policy.standardise(observations), drawn.actions)
        return q - self.config.temperature * drawn.entropy_cost

    def values(
        self, batch: Batch, drawn: PolicyActions | None, noise: Noise | None = None, actions: Tensor | None = None
    ) -> TransitionValues:
        """Q(s, a) and V(s) by each critic, V(s') by the target critics' ensemble, clipped, and the discounts.

        `drawn`: the policy's actions at s, for V(s), which gives them no gradient; None: sampled here. `actions`: the
        recorded ones, scaled, where the caller needs Q's gradient with respect to them.
        """
        noise = noise or self.drawing
        actions = self.policy.scale_actions(batch.actions) if actions is None else actions
        q = self.critic(self.policy.standardise(batch.observations), actions)
        v = self.soft_value(batch.observations, self.critic, noise, drawn and drawn.detached())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.target is None):
            next_v = self.pessimistic(self.soft_value(batch.next_observations, self.target_critic, noise))
            next_v = bounded(next_v, self.config.target_bound)
        next_v, discounts = bootstrap(next_v, batch.terminations, self.config.gamma, self.absorbing_value)
        return TransitionValues(*(one.expand(len(q), -1).reshape(-1) for one in (q, v, next_v, discounts)))

    def recorded_actions(self, batch: Batch) -> Tensor:
        """The batch's actions, scaled, (B, A); they require a gradient, since regularisers may use dQ/da."""
        return self.policy.scale_actions(batch.actions).requires_grad_(True)

    def pessimistic(self, q: Tensor) -> Tensor:
        """Mean, minimum or lower bound over the critics, by `ensemble.pessimism`, (N, B) -> (B,)."""
        return pessimistic(q, self.config.ensemble.pessimism, self.config.ensemble.deviations)

    def descend_critics(
        self, loss: Tensor, batch: Batch, actions: Tensor, q: Tensor, drawn: PolicyActions | None
    ) -> Metrics:
        """One optimiser step on the critics' loss plus regularisers. `q`: Q of the expert's `actions`, (N B,)."""
        inputs = CriticInputs(
            self.policy,
            self.critic,
            batch,
            self.policy.standardise(batch.observations),
            actions,
            q.view(len(self.critic.members), -1),
            None if drawn is None else drawn.actions.detach(),
            self.drawing,
        )
        total, terms = regularised(loss, self.regularisers.critic, inputs)
        norm, *_ = descend(self.critic_optimisers, total)
        return {"loss": loss.detach(), **terms, "critic_gradient_norm": norm}

    def descend_actor(self, loss: Tensor, batch: Batch) -> Metrics:
        """One optimiser step on the actor's loss plus regularisers."""
        total, terms = regularised(loss, self.regularisers.actor, self.policy, batch)
        (norm,) = descend([self.actor_optimiser], total)
        return {"actor_loss": loss.detach(), **terms, "actor_gradient_norm": norm}

    def soft_actor_loss(
        self, batch: Batch, drawn: PolicyActions, supplementary: PolicyActions | None
    ) -> tuple[Tensor, Tensor]:
        """-E[V(s)] and the mean entropy cost, (), (), over the batch's observations. Source: [SAC18] eq. 7.

        With `supplementary`, the policy's actions there, over the supplementary observations, too.
        """
        observations, actions, cost = batch.observations, drawn.actions, drawn.entropy_cost
        if supplementary is not None and batch.supplementary is not None:
            observations = torch.cat([observations, batch.supplementary.observations])
            actions = torch.cat([actions, supplementary.actions])
            cost = torch.cat([cost, supplementary.entropy_cost])
        q = self.pessimistic(self.critic(self.policy.standardise(observations), actions))
        return actor_loss(q, cost, self.config.temperature), cost.mean().detach()

    def update_target(self) -> None:
        """Target critics <- (1 - polyak_rate) * target critics + polyak_rate * critics."""
        if self.target is not None:
            self.target.follow()

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> Metrics:
        """Q by action and source, value, recovered reward, advantage, distance from the clone, entropy."""
        noise = Drawn(torch.Generator(device=batch.observations.device).manual_seed(0))
        observations = self.policy.standardise(batch.observations)
        distribution = self.policy.distribution(batch.observations)
        expert = self.values(batch, self.policy_actions(batch, noise), noise)
        random = symmetric(noise, *batch.actions.shape)
        metrics = expert.means("expert") | {
            "policy_q": self.critic(observations, distribution.mode()).mean(),
            "random_q": self.critic(observations, random).mean(),
            "expert_advantage": (expert.q - expert.v).mean(),
            "policy_entropy": distribution.entropy().mean(),
            "action_error": self.policy.action_error(batch),
        }
        if isinstance(self.entropy, PriorEntropy):
            difference = distribution.mode() - self.entropy.prior.distribution(batch.observations).mode()
            metrics["prior_distance"] = difference.square().mean()
        if batch.supplementary is not None:
            other = self.policy_actions(batch.supplementary, noise)
            metrics |= self.values(batch.supplementary, other, noise).means("supplementary")
        return metrics

    @property
    def drawing(self) -> Noise:
        """Source of an update's random numbers."""
        assert self.noise is not None
        return self.noise

    def _draw(self, observations: Tensor, noise: Noise) -> PolicyActions:
        distribution = self.policy.distribution(observations)
        return self.entropy(distribution, observations, normal(noise, distribution.mean))
