"""Offline IQ-Learn with discrete actions: one soft Q-function is policy, value and reward ([IQ21] alg. 1, eq. 12)."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed, SlowCopy, descend
from iq_offline.algorithms.bc import action_error, cloning_errors, policy_entropy
from iq_offline.algorithms.conservative.actors import advantage_weights, weighted_cloning
from iq_offline.algorithms.conservative.penalties import hinge_gradient_penalty, two_sided_gradient_penalty
from iq_offline.algorithms.conservative.values import cql_gap, value_suppression
from iq_offline.algorithms.learner import Metrics, named
from iq_offline.algorithms.losses import bounded, prior_soft_value, soft_value
from iq_offline.algorithms.networks import AbsorbingState, DiscretePolicy, ValueNetwork, with_precision
from iq_offline.algorithms.noise import Noise
from iq_offline.algorithms.objective import SourceValues, bootstrap, critic_loss, divergence_of, mixed
from iq_offline.algorithms.pieces import absorbing_value, coherent_reward, in_sample_loss
from iq_offline.batch import Batch
from iq_offline.config import (
    AbsorbingValue,
    DiscreteIQConfig,
    EntropyReference,
    GradientPenaltyKind,
    ObjectiveKind,
    Source,
    ValueTerm,
)


@dataclass(frozen=True)
class DiscreteNetworks:
    """What a run learns: the Q-function; a policy of its own, a cloned prior and an in-sample value, or None.

    Without an actor `q` is the policy: its outputs are logits l, Q(s, a) = temperature * l (with an entropy against a
    prior, temperature * (l - log prior)), and V(s) = temperature * logsumexp(l). So the policy learns at one pace
    whatever the temperature, and can start as a clone. With a `state_value` network logits are normalised and V is what
    that network says: Q(s, a) = V(s) + temperature * log policy(a | s), every Q-function written as value and policy,
    so that fitting V does not move the policy where the data say nothing. With an actor its outputs are Q itself.
    """

    q: DiscretePolicy
    actor: DiscretePolicy | None = None
    prior: DiscretePolicy | None = None
    value: ValueNetwork | None = None
    state_value: ValueNetwork | None = None


class DiscreteIQLearner:
    """AdamW on eq. 12, the learning rate falling to zero along a cosine.

    Since Q(s, a) - V(s) = temperature * log policy(a | s), the loss is the cloning loss times the temperature
    plus a penalty on the recovered reward, and silent about observations off the data.

    V(s') comes from a slow target, bounded. The paper's full gradient (polyak_rate None) descends the objective itself,
    but trains Q at next observations that carry no action: with subsampled demonstrations it strengthens whichever
    action leads there, right or wrong.
    """

    def __init__(self, config: DiscreteIQConfig, networks: DiscreteNetworks | DiscretePolicy) -> None:
        self.networks = DiscreteNetworks(networks) if isinstance(networks, DiscretePolicy) else networks
        self.q, self.value = self.networks.q, self.networks.value
        self.prior = None if self.networks.prior is None else self.networks.prior.requires_grad_(False)
        self.policy = self.networks.actor or self.q
        tracks = config.polyak_rate is not None
        self.state_value = self.networks.state_value
        for network in _present(self.q, self.networks.actor, self.prior, self.value, self.state_value):
            with_precision(network, config.precision)
        self._target: Function = (self.q, self.state_value)
        if tracks:
            self._target = copy.deepcopy(self._target)
            for module in _present(*self._target):
                module.requires_grad_(False)
        self.absorbing = AbsorbingState(config.gamma).to(self.q.observation_mean.device)
        self._config = config
        self._divergence = divergence_of(config)
        self.noise: Noise | None = None
        rate, decay, total = config.learning_rate, config.weight_decay, config.updates
        self.adams = [Adam(_present(self.q, self.state_value), rate, decay, total)]
        if self.networks.actor is not None:
            self.adams.append(Adam([self.networks.actor], rate, decay, total))
        if self.value is not None:
            assert config.in_sample_value is not None
            self.adams.append(Adam([self.value], config.in_sample_value.learning_rate, decay, total))
        if config.absorbing_value is AbsorbingValue.LEARNED:
            self.adams.append(Adam([self.absorbing], rate, 0.0, total))
        self._average = None
        if config.polyak_rate is not None:
            fast = _present(self.q, self.state_value)
            self._average = SlowCopy(_present(*self._target), fast, config.polyak_rate)

    @property
    def changed(self) -> list[Changed]:
        """All that an update changes."""
        return [*self.adams, *([] if self._average is None else [self._average])]

    def update(self, batch: Batch) -> Metrics:
        """One step on all that is learnt."""
        config = self._config
        expert = self._values(batch)
        supplementary = None if batch.supplementary is None else self._values(batch.supplementary)
        initial_v = None
        if config.value_term is ValueTerm.INITIAL:
            assert batch.initial_observations is not None
            initial_v = self._value(batch.initial_observations)
        loss = critic_loss(config, self._divergence.phi, expert, supplementary, initial_v)
        metrics, total = {"loss": loss.detach()}, loss
        for name, weight, piece in self._pieces(batch, expert):
            metrics[name] = piece.detach()
            total = total + weight * piece
        if self.networks.actor is not None:
            actor_metrics, actor_loss = self._actor_loss(batch)
            metrics |= actor_metrics
            total = total + actor_loss
        norms = descend(self.adams, total)
        if self._average is not None:
            self._average.follow()
        metrics["critic_gradient_norm"] = norms[0]
        return metrics if self.networks.actor is None else metrics | {"actor_gradient_norm": norms[1]}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> Metrics:
        """Q by action and source, value, recovered reward, advantage, distance from the clone, entropy, gradients."""
        expert, all_q = self._values(batch), self._all_q(batch.observations)
        actions = self.policy.act(batch.observations).unsqueeze(-1)
        metrics = {
            "expert_q": expert.q.mean(),
            "policy_q": all_q.gather(-1, actions).mean(),
            "random_q": all_q.mean(),
            "expert_value": expert.v.mean(),
            "expert_reward": expert.rewards.mean(),
            "expert_advantage": (expert.q - expert.v).mean(),
            "policy_entropy": self._entropy(batch.observations),
            "action_error": action_error(self.policy, batch),
        }
        if self.prior is not None:
            same = self.prior.act(batch.observations) == actions.squeeze(-1)
            metrics["prior_distance"] = 1 - same.float().mean()
        if batch.supplementary is not None:
            other = self._values(batch.supplementary)
            metrics |= {
                "supplementary_q": other.q.mean(),
                "supplementary_value": other.v.mean(),
                "supplementary_reward": other.rewards.mean(),
            }
        if self._config.absorbing_value is AbsorbingValue.LEARNED:
            metrics["absorbing_value"] = self.absorbing.value.detach()
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """The policy's (which are the Q-function's, unless it has an actor), and all else that there is."""
        found = named("policy", self.policy)
        if self._config.polyak_rate is not None:
            found |= named("target", self._target[0])
        parts = {
            "prior": self.prior,
            "value": self.value,
            "q": None if self.policy is self.q else self.q,
            "state_value": self.state_value,
            "target_state_value": self._target[1] if self._config.polyak_rate is not None else None,
        }
        for name, module in parts.items():
            if module is not None:
                found |= named(name, module)
        if self._config.absorbing_value is AbsorbingValue.LEARNED:
            found["absorbing_value"] = self.absorbing.value.detach()
        return found

    def _pieces(self, batch: Batch, expert: SourceValues) -> list[tuple[str, float, Tensor]]:
        """Name, weight and value of each further loss that is on."""
        config, pieces = self._config, []
        if config.cql is not None and config.cql.weight > 0:
            gap = self._cql_gap(batch)
            other = batch.supplementary if config.cql.on is Source.MIXTURE else None
            pieces.append(("cql_gap", config.cql.weight, mixed(gap, None if other is None else self._cql_gap(other))))
        suppression = config.value_suppression
        if suppression is not None and suppression.weight > 0 and batch.supplementary is not None:
            all_q = self._all_q(batch.supplementary.observations)
            of_policy = (self._probabilities(batch.supplementary.observations) * all_q).sum(dim=-1)
            pieces.append(("value_suppression", suppression.weight, value_suppression(of_policy, expert.q)))
        if config.gradient_penalty is not None and config.gradient_penalty.weight > 0:
            pieces.append(("gradient_penalty", config.gradient_penalty.weight, self._steepness(batch)))
        if self.value is not None:
            pieces.append(("value_loss", 1.0, self._value_loss(batch)))
        return pieces

    def _cql_gap(self, batch: Batch) -> Tensor:
        assert self._config.cql is not None
        all_q = self._all_q(batch.observations)
        return cql_gap(all_q, _of_actions(all_q, batch.actions), self._config.cql.temperature)

    def _steepness(self, batch: Batch) -> Tensor:
        """The penalty on the gradient of the recorded action's Q with respect to the standardised observation."""
        penalty = self._config.gradient_penalty
        assert penalty is not None
        points = batch.observations.detach().clone().requires_grad_(True)
        q = _of_actions(self._all_q(points), batch.actions)
        (of_raw,) = torch.autograd.grad(q.sum(), points, create_graph=True)
        gradients = of_raw * self.q.observation_std
        kind = hinge_gradient_penalty if penalty.kind is GradientPenaltyKind.HINGE else two_sided_gradient_penalty
        return kind(gradients, penalty.target)

    def _value_loss(self, batch: Batch) -> Tensor:
        assert self.value is not None
        assert self._config.in_sample_value is not None
        losses = []
        for source in (batch, batch.supplementary):
            if source is not None:
                with torch.no_grad():
                    q = _of_actions(self._all_q(source.observations, self._target), source.actions)
                v = self.value(self.q.standardise(source.observations))
                losses.append(in_sample_loss(self._config.in_sample_value, v, q))
        return mixed(losses[0], losses[1] if len(losses) > 1 else None)

    def _actor_loss(self, batch: Batch) -> tuple[Metrics, Tensor]:
        """Cloning of recorded actions, weighted by their advantage. Source: [AWR19] eq. 8."""
        config = self._config.advantage_weights
        assert config is not None
        losses, means = [], []
        for source in (batch, batch.supplementary if config.on is Source.MIXTURE else None):
            if source is not None:
                with torch.no_grad():
                    values = self._values(source)
                weights = advantage_weights(values.q - values.v, config.temperature, config.largest)
                losses.append(weighted_cloning(cloning_errors(self.policy, source), weights))
                means.append(weights.mean())
        loss = mixed(losses[0], losses[1] if len(losses) > 1 else None)
        metrics = {"actor_loss": loss.detach(), "expert_weight": means[0]}
        return metrics | ({"supplementary_weight": means[1]} if len(means) > 1 else {}), loss

    def _values(self, batch: Batch) -> SourceValues:
        config = self._config
        if config.polyak_rate is None and self.value is None:
            all_q, v, next_v = self._values_together(batch)
        else:
            all_q = self._all_q(batch.observations)
            v = self._value(batch.observations, all_q=all_q)
            with torch.no_grad():
                next_v = self._value(batch.next_observations, self._target)
        next_v = bounded(next_v, config.target_bound)
        behind = absorbing_value(config, self.absorbing.value)
        next_v, discounts = bootstrap(next_v, batch.terminations, config.gamma, behind)
        return SourceValues(
            q=_of_actions(all_q, batch.actions),
            v=v,
            next_v=next_v,
            discounts=discounts,
            terminations=batch.terminations,
            gamma=config.gamma,
            tail=self.absorbing.value if config.absorbing_value is AbsorbingValue.LEARNED else None,
            coherent_rewards=self._coherent(batch),
        )

    def _values_together(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Q of all actions at s, V(s) and V(s') of one network, in one pass."""
        observations = torch.cat([batch.observations, batch.next_observations])
        all_q = self._all_q(observations)
        v = soft_state_value(self._config, self.networks, all_q, observations)
        size = len(batch.observations)
        return all_q[:size], v[:size], v[size:]

    def _value(self, observations: Tensor, function: "Function | None" = None, all_q: Tensor | None = None) -> Tensor:
        """Soft value at raw observations, (B,): in-sample, of the actor, or of the softmax of Q."""
        if self.value is not None:
            with torch.no_grad():
                in_sample: Tensor = self.value(self.q.standardise(observations))
                return in_sample
        if all_q is None:
            all_q = self._all_q(observations, function)
        return soft_state_value(self._config, self.networks, all_q, observations)

    def _all_q(self, observations: Tensor, function: "Function | None" = None) -> Tensor:
        return q_values(self._config, self.networks, observations, function)

    def _probabilities(self, observations: Tensor) -> Tensor:
        with torch.no_grad():
            if self.networks.actor is not None:
                return torch.softmax(self.networks.actor(observations), dim=-1)
            logits: Tensor = self.q(observations)
            return torch.softmax(logits, dim=-1)

    def _entropy(self, observations: Tensor) -> Tensor:
        if self.networks.actor is not None:
            return policy_entropy(self.networks.actor, observations)
        probabilities = self._probabilities(observations)
        surprises: Tensor = -torch.special.xlogy(probabilities, probabilities)
        return surprises.sum(dim=-1).mean()

    def _coherent(self, batch: Batch) -> Tensor | None:
        """[CSIL23]'s reward: weight * log(cloned probability * actions), bounded."""
        if self._config.objective is not ObjectiveKind.COHERENT:
            return None
        assert self.prior is not None
        with torch.no_grad():
            log_prior = torch.log_softmax(self.prior(batch.observations), dim=-1)
            ratio = _of_actions(log_prior, batch.actions) + torch.tensor(float(log_prior.shape[-1])).log()
            return coherent_reward(ratio, self._config.coherence, 1)


Function = tuple[DiscretePolicy, ValueNetwork | None]
"""A Q-function: its network, and that of its value where it has one."""


def q_values(
    config: DiscreteIQConfig, networks: DiscreteNetworks, observations: Tensor, function: Function | None = None
) -> Tensor:
    """Q of all actions at raw observations, (B, actions), by the run's networks or by `function` (its target)."""
    q, state_value = function or (networks.q, networks.state_value)
    outputs: Tensor = q(observations)
    if networks.actor is not None:
        return outputs
    if state_value is not None:
        v = state_value(q.standardise(observations)).unsqueeze(-1)
        outputs = torch.log_softmax(outputs, dim=-1) + v / config.temperature
    if config.entropy is EntropyReference.UNIFORM:
        return outputs * config.temperature
    assert networks.prior is not None
    log_prior = torch.log_softmax(networks.prior(observations), dim=-1)
    return (outputs - log_prior) * config.temperature


def soft_state_value(
    config: DiscreteIQConfig, networks: DiscreteNetworks, all_q: Tensor, observations: Tensor
) -> Tensor:
    """V(s) from Q of all actions, (B, actions) -> (B,).

    Of an actor pi: sum pi (Q - temperature log(pi / prior)). Else the greatest such value over all policies, in closed
    form.
    """
    log_prior = None
    if config.entropy is EntropyReference.PRIOR:
        assert networks.prior is not None
        with torch.no_grad():
            log_prior = torch.log_softmax(networks.prior(observations), dim=-1)
    if networks.actor is not None:
        with torch.no_grad():
            log_policy = torch.log_softmax(networks.actor(observations), dim=-1)
            cost = log_policy if log_prior is None else log_policy - log_prior
        return (log_policy.exp() * (all_q - config.temperature * cost)).sum(dim=-1)
    if log_prior is None:
        return soft_value(all_q, config.temperature)
    return prior_soft_value(all_q, log_prior, config.temperature)


def _present(*modules: torch.nn.Module | None) -> list[torch.nn.Module]:
    return [module for module in modules if module is not None]


def _of_actions(all_q: Tensor, actions: Tensor) -> Tensor:
    """Q of the recorded action, (B, actions), (B,) -> (B,): a masked sum, whose gradient scatters nothing.

    The scattered gradient of `gather` is what PyTorch 2.13's compiler adds up wrongly on a CPU: under an actor of its
    own the critic's gradient was off by more than its norm (`tests/training/test_compiled.py`).
    """
    chosen = actions.unsqueeze(-1) == torch.arange(all_q.shape[-1], device=all_q.device)
    return torch.where(chosen, all_q, 0.0).sum(dim=-1)
