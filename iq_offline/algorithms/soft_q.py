"""What the methods for discrete actions share: a soft Q-function, its target network, its values ([IQ21] sec. 2)."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from iq_offline.algorithms.actor_critic import TransitionValues
from iq_offline.algorithms.adam import Adam, Changed, SlowCopy, descend
from iq_offline.algorithms.encoders import Encoder
from iq_offline.algorithms.losses import (
    Metrics,
    Regulariser,
    bootstrap,
    bounded,
    prior_soft_value,
    regularised,
    soft_value,
)
from iq_offline.algorithms.networks import DiscretePolicy, ValueNetwork, named
from iq_offline.algorithms.noise import Noise
from iq_offline.algorithms.regularisers import DiscreteCriticInputs, q_of_actions
from iq_offline.batch import Batch
from iq_offline.config.soft_q import SoftQConfig


@dataclass(frozen=True)
class SoftQ:
    """Q(s, a) of all actions and V(s), both computed from logits l; the policy is softmax(l).

    Without a prior, Q = temperature * l and V = temperature * logsumexp(l). Relative to a prior, Q = temperature *
    (l - log prior). The logits can therefore start as a clone's, and learn at one rate whatever the temperature. With a
    `value` network, log policy + V / temperature takes the place of l, where V is that network's output. Without a
    prior this is Q(s, a) = V(s) + temperature * log policy(a | s). Fitting V then does not change the policy at
    observations that are not in the data.
    """

    logits: DiscretePolicy
    temperature: float
    value: ValueNetwork | None = None
    prior: DiscretePolicy | None = None
    encoder: Encoder | None = None
    """The one that `logits`, `value` and every copy of them share, and that is not trained; None: each has its own."""

    @property
    def policy(self) -> DiscretePolicy:
        """The network whose greatest output is the executed action."""
        return self.logits

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that Q is computed from."""
        return [self.logits] if self.value is None else [self.logits, self.value]

    @property
    def trained(self) -> list[nn.Module]:
        """What of them is trained: all but a shared encoder."""
        if self.encoder is None:
            return self.networks
        return [self.logits.network, *([] if self.value is None else [self.value.network])]

    def q(self, observations: Tensor) -> Tensor:
        """Q of all actions at raw observations, (B, D) -> (B, actions)."""
        outputs, v = self._outputs(observations)
        if v is not None:
            outputs = torch.log_softmax(outputs, dim=-1) + v.unsqueeze(-1) / self.temperature
        if self.prior is None:
            return outputs * self.temperature
        return (outputs - torch.log_softmax(self.prior(observations), dim=-1)) * self.temperature

    def _outputs(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and V's output where there is such a network; a shared encoder computes once for both."""
        if self.value is None:
            return self.logits(observations), None
        standardised = self.logits.standardise(observations)
        if self.encoder is None:
            return self.logits(observations), self.value(standardised)
        features = self.encoder(standardised)
        return self.logits.network(features), self.value.network(features).squeeze(-1)

    def v(self, q: Tensor, observations: Tensor) -> Tensor:
        """V(s), the maximum over policies in closed form, from Q of all actions at s, (B, actions) -> (B,)."""
        if self.prior is None:
            return soft_value(q, self.temperature)
        with torch.no_grad():
            log_prior = torch.log_softmax(self.prior(observations), dim=-1)
        return prior_soft_value(q, log_prior, self.temperature)

    def probabilities(self, observations: Tensor) -> Tensor:
        """Probabilities of the policy, without a gradient, (B, D) -> (B, actions)."""
        with torch.no_grad():
            logits: Tensor = self.logits(observations)
            return torch.softmax(logits, dim=-1)

    def frozen_copy(self) -> Self:
        """A target: copies of `logits` and `value` without gradients. It shares all else, and a shared encoder."""
        logits, value = copy.deepcopy((self.logits, self.value), {id(self.encoder): self.encoder})
        for network in (logits, value):
            if network is not None:
                network.requires_grad_(False)
        return replace(self, logits=logits, value=value)


@dataclass(frozen=True)
class QWithActor(SoftQ):
    """Q from a network of its own; V is the soft value of a separate actor, which gets no gradient from V."""

    actor: DiscretePolicy | None = None

    @property
    def policy(self) -> DiscretePolicy:
        """The actor."""
        assert self.actor is not None
        return self.actor

    def q(self, observations: Tensor) -> Tensor:
        """Q of all actions at raw observations, (B, D) -> (B, actions)."""
        outputs: Tensor = self.logits(observations)
        return outputs

    def v(self, q: Tensor, observations: Tensor) -> Tensor:
        """sum_a pi(a | s) (Q(s, a) - temperature * log pi(a | s)), (B, actions) -> (B,)."""
        with torch.no_grad():
            log_policy = torch.log_softmax(self.policy(observations), dim=-1)
        return (log_policy.exp() * (q - self.temperature * log_policy)).sum(dim=-1)

    def probabilities(self, observations: Tensor) -> Tensor:
        """Probabilities of the actor, without a gradient, (B, D) -> (B, actions)."""
        with torch.no_grad():
            return torch.softmax(self.policy(observations), dim=-1)


class SoftQLearner(ABC):
    """A Q-function, its optimiser, target and values; each method adds its own `update`.

    V(s') comes from the target network, clipped to `target_bound`. Without a target network (`polyak_rate=none`) the
    gradient flows through V(s') as in [IQ21]. It then trains Q at next observations, too; those carry no action.
    """

    absorbing_value: Tensor | float | None = None
    """Value after a termination; None: zero, as in [IQ21]."""
    reward_bounds: tuple[float, float] | None = None
    """Least and greatest recovered reward, where a method knows them."""

    @property
    def recovery_absorbing_value(self) -> Tensor | float | None:
        """Value after a termination, for recovering rewards."""
        return self.absorbing_value

    def __init__(self, config: SoftQConfig, function: SoftQ, regularisers: Sequence[Regulariser] = ()) -> None:
        self.config, self.function, self.regularisers = config, function, list(regularisers)
        self.noise: Noise | None = None
        self.policy = function.policy
        self.modules: dict[str, nn.Module] = {"policy": function.policy}
        if function.policy is not function.logits:
            self.modules["q"] = function.logits
        if function.value is not None:
            self.modules["state_value"] = function.value
        self.target_function, self.target = function, None
        if config.polyak_rate is not None:
            self.target_function = function.frozen_copy()
            names = ("target", "target_state_value")
            self.modules |= dict(zip(names, self.target_function.networks, strict=False))
            self.target = SlowCopy(self.target_function.trained, function.trained, config.polyak_rate)
        self.adams = [Adam(function.trained, config.learning_rate, config.weight_decay, config.updates)]

    @property
    def changed(self) -> list[Changed]:
        """The optimisers, whose parameters an update changes, and the target."""
        return [*self.adams, *([] if self.target is None else [self.target])]

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of all networks, named NETWORK.PARAMETER."""
        return {key: tensor for name, module in self.modules.items() for key, tensor in named(name, module).items()}

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One update of all that is learnt; returns metrics as scalars."""

    def soft_value(self, observations: Tensor, function: SoftQ, q: Tensor | None = None) -> Tensor:
        """V(s) at raw observations, (B,). `q`: Q of all actions there; None: computed here."""
        return function.v(function.q(observations) if q is None else q, observations)

    def values(self, batch: Batch) -> TransitionValues:
        """Q(s, a), V(s), V(s') and discount of each transition, (B,)."""
        config = self.config
        if self.target is None:
            q, v, next_v = self._values_in_one_pass(batch)
        else:
            q = self.function.q(batch.observations)
            v = self.soft_value(batch.observations, self.function, q)
            with torch.no_grad():
                next_v = self.soft_value(batch.next_observations, self.target_function)
        next_v = bounded(next_v, config.target_bound)
        next_v, discounts = bootstrap(next_v, batch.terminations, config.gamma, self.absorbing_value)
        return TransitionValues(q_of_actions(q, batch.actions), v, next_v, discounts)

    def regularised(self, loss: Tensor, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """The loss plus weighted regularisers, and the unweighted terms by name. `q`: of the expert's actions, (B,)."""
        std = self.function.logits.observation_std
        inputs = DiscreteCriticInputs(self.function.q, self.function.probabilities, std, batch, q)
        return regularised(loss, self.regularisers, inputs)

    def descend(self, loss: Tensor, batch: Batch, q: Tensor) -> Metrics:
        """One optimiser step on the loss plus regularisers, then the target step."""
        total, terms = self.regularised(loss, batch, q)
        return {"loss": loss.detach(), **terms, "critic_gradient_norm": self.step(total)[0]}

    def step(self, total: Tensor) -> list[Tensor]:
        """One step of each optimiser on `total`, then the target step; returns each optimiser's gradient norm."""
        norms = descend(self.adams, total)
        if self.target is not None:
            self.target.follow()
        return norms

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> Metrics:
        """Q by action and source, value, recovered reward, advantage, distance from the clone, entropy."""
        expert, q = self.values(batch), self.function.q(batch.observations)
        actions = self.policy.act(batch.observations)
        metrics = expert.means("expert") | {
            "policy_q": q.gather(-1, actions.unsqueeze(-1)).mean(),
            "random_q": q.mean(),
            "expert_advantage": (expert.q - expert.v).mean(),
            "policy_entropy": self.policy.entropy(batch.observations),
            "action_error": self.policy.action_error(batch),
        }
        if "prior" in self.modules:
            prior: DiscretePolicy = self.modules["prior"]  # type: ignore[assignment]
            metrics["prior_distance"] = 1 - (prior.act(batch.observations) == actions).float().mean()
        if batch.supplementary is not None:
            metrics |= self.values(batch.supplementary).means("supplementary")
        return metrics

    def _values_in_one_pass(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Q of all actions at s, V(s) and V(s'), all of the trained network: one forward pass over s and s'."""
        observations = torch.cat([batch.observations, batch.next_observations])
        q = self.function.q(observations)
        v = self.soft_value(observations, self.function, q)
        size = len(batch.observations)
        return q[:size], v[:size], v[size:]
