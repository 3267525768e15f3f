"""Offline IQ-Learn with continuous actions: an actor, critics with slow targets, and whichever conservative pieces.

Plain actor-critic IQ-Learn has no bound offline: with a deterministic expert the advantage Q(s, a) - V(s) can grow
without end, as Q sharpens at the recorded actions. What holds it by default: a soft value whose entropy is
measured against the cloned policy (leaving it costs), an action-gradient penalty (no spikes), and a LayerNorm critic.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from iq_offline.algorithms.adam import Adam, Changed, SlowCopy, descend
from iq_offline.algorithms.bc import action_error, anchor_loss, cloning_errors
from iq_offline.algorithms.conservative.actors import advantage_weights, scaled_q, weighted_cloning
from iq_offline.algorithms.conservative.ensembles import pessimistic
from iq_offline.algorithms.critic_pieces import CriticPieces
from iq_offline.algorithms.distributions import ClippedGaussian, ContinuousActionDistribution, bounded_log_density
from iq_offline.algorithms.learner import Metrics, named
from iq_offline.algorithms.losses import bounded
from iq_offline.algorithms.networks import (
    AbsorbingState,
    ContinuousPolicy,
    CriticEnsemble,
    ValueNetwork,
    with_precision,
)
from iq_offline.algorithms.noise import Drawn, Noise, normal, symmetric
from iq_offline.algorithms.objective import SourceValues, bootstrap, critic_loss, divergence_of, flat, mixed
from iq_offline.algorithms.pieces import LOG_UNIFORM, absorbing_value, coherent_reward, in_sample_loss
from iq_offline.batch import Batch
from iq_offline.config import (
    AbsorbingValue,
    ActionGradientAt,
    CloningLoss,
    ContinuousIQConfig,
    EntropyReference,
    ObjectiveKind,
    Source,
    ValueTerm,
)


@dataclass(frozen=True)
class ContinuousNetworks:
    """What a run learns: the actor, its cloned prior, critics, and an in-sample value; None where there is none."""

    policy: ContinuousPolicy
    prior: ContinuousPolicy | None
    critic: CriticEnsemble
    value: ValueNetwork | None = None


@dataclass(frozen=True)
class Acting:
    """What the policy does at some observations: drawn actions (B, A), and what its entropy takes off V, (B,)."""

    actions: Tensor
    cost: Tensor

    def detached(self) -> "Acting":
        """Without a gradient."""
        return Acting(self.actions.detach(), self.cost.detach())

    def turned(self) -> "Acting":
        """The same numbers with their gradient's sign turned: what a loss pushes down, the policy then pushes up."""
        return Acting(2 * self.actions.detach() - self.actions, 2 * self.cost.detach() - self.cost)


class ContinuousIQLearner:
    """An actor, critics and their slow target; each update moves critics, then actor.

    The policy acts once at the batch's observations: V(s) and the actor's own loss see the same draws.
    """

    def __init__(self, config: ContinuousIQConfig, networks: ContinuousNetworks, noise: torch.Generator) -> None:
        self.networks = networks
        self.policy, self.critic, self.value = networks.policy, networks.critic, networks.value
        self.prior = None if networks.prior is None else networks.prior.requires_grad_(False)
        for network in (self.policy, self.critic, self.prior, self.value):
            if network is not None:
                with_precision(network, config.precision)
        tracks = config.polyak_rate is not None
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False) if tracks else self.critic
        self.absorbing = AbsorbingState(config.gamma).to(noise.device)
        self._config = config
        self._divergence = divergence_of(config)
        self._pieces = CriticPieces(config, self.policy, self.critic)
        self.noise: Noise = Drawn(noise)
        self._members = len(self.critic.members)
        total = config.updates
        self._actor_adam = Adam([self.policy], config.actor_learning_rate, config.actor_weight_decay, total)
        self._critic_adams = [Adam([self.critic], config.critic_learning_rate, config.critic_weight_decay, total)]
        if config.absorbing_value is AbsorbingValue.LEARNED:
            self._critic_adams.append(Adam([self.absorbing], config.critic_learning_rate, 0.0, total))
        self._value_adam = None
        if self.value is not None:
            assert config.in_sample_value is not None
            self._value_adam = Adam([self.value], config.in_sample_value.learning_rate, 0.0, total)
        self.adams = [*self._critic_adams, self._actor_adam, *([self._value_adam] if self._value_adam else [])]
        self._average = None
        if config.polyak_rate is not None:
            self._average = SlowCopy([self.target_critic], [self.critic], config.polyak_rate)

    @property
    def changed(self) -> list[Changed]:
        """All that an update changes."""
        return [*self.adams, *([] if self._average is None else [self._average])]

    def update(self, batch: Batch) -> Metrics:
        """One step of the in-sample value if there is one, of the critics, of the actor, of the target's average."""
        metrics = {} if self.value is None else self._update_value(batch)
        expert, supplementary = self._acting_on(batch), self._acting_on(batch.supplementary)
        if self._config.one_backward:
            metrics |= self._update_both(batch, expert, supplementary)
        else:
            metrics |= self._update_critic(batch, expert, supplementary)
            metrics |= self._update_actor(batch, expert, supplementary)
        if self._average is not None:
            self._average.follow()
        return metrics

    def tensors(self) -> dict[str, Tensor]:
        """Policy, prior, critics, target critics, in-sample value and absorbing value: those that there are."""
        parts = {"policy": self.policy, "prior": self.prior, "critic": self.critic, "value": self.value}
        if self._config.polyak_rate is not None:
            parts["target_critic"] = self.target_critic
        found = {
            key: tensor for name, part in parts.items() if part is not None for key, tensor in named(name, part).items()
        }
        if self._config.absorbing_value is AbsorbingValue.LEARNED:
            found["absorbing_value"] = self.absorbing.value.detach()
        return found

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> Metrics:
        """Q by action and source, value, recovered reward, advantage, distance from the clone, entropy, gradients."""
        device = batch.observations.device
        noise = Drawn(torch.Generator(device=device).manual_seed(0))
        observations = self.policy.standardise(batch.observations)
        here = self.policy.distribution(batch.observations)
        expert = self._values(batch, noise, self._acting(batch.observations, noise))
        random = symmetric(noise, *batch.actions.shape)
        metrics = {
            "expert_q": expert.q.mean(),
            "policy_q": self.critic(observations, here.mode()).mean(),
            "random_q": self.critic(observations, random).mean(),
            "expert_value": expert.v.mean(),
            "expert_reward": expert.rewards.mean(),
            "expert_advantage": (expert.q - expert.v).mean(),
            "policy_entropy": here.entropy().mean(),
            "action_error": action_error(self.policy, batch),
        }
        if self.prior is not None:
            difference = here.mode() - self.prior.distribution(batch.observations).mode()
            metrics["prior_distance"] = difference.square().mean()
        if batch.supplementary is not None:
            other = self._values(batch.supplementary, noise, self._acting(batch.supplementary.observations, noise))
            metrics |= {
                "supplementary_q": other.q.mean(),
                "supplementary_value": other.v.mean(),
                "supplementary_reward": other.rewards.mean(),
            }
        if self._config.absorbing_value is AbsorbingValue.LEARNED:
            metrics["absorbing_value"] = self.absorbing.value.detach()
        return metrics

    def _update_value(self, batch: Batch) -> Metrics:
        assert self.value is not None
        assert self._config.in_sample_value is not None
        losses = []
        for source in (batch, batch.supplementary):
            if source is None:
                continue
            observations = self.policy.standardise(source.observations)
            with torch.no_grad():
                q = self._pessimistic(self.target_critic(observations, self.policy.scale_actions(source.actions)))
            losses.append(in_sample_loss(self._config.in_sample_value, self.value(observations), q))
        loss = mixed(losses[0], losses[1] if len(losses) > 1 else None)
        assert self._value_adam is not None
        descend([self._value_adam], loss)
        return {"value_loss": loss.detach()}

    def _update_critic(self, batch: Batch, here: "Acting | None", there: "Acting | None") -> Metrics:
        """`here`, `there`: what the policy does at the expert's and at the supplementary observations."""
        here, there = (None if acting is None else acting.detached() for acting in (here, there))
        metrics, total, _ = self._critic_loss(batch, here, there)
        norms = descend(self._critic_adams, total)
        return metrics | {"critic_gradient_norm": norms[0]}

    def _update_both(self, batch: Batch, here: "Acting | None", there: "Acting | None") -> Metrics:
        """Critics and actor by one gradient, at the same Q: E[V(s)], which critics lower and the actor raises."""
        acting = [one for one in (here, there) if one is not None]
        turned = [one.turned() for one in acting]
        metrics, total, value = self._critic_loss(batch, turned[0], turned[1] if len(turned) > 1 else None)
        if self._config.anchor is not None:
            total = total + anchor_loss(self._config.anchor, self.policy, batch)
        *norms, actor_norm = descend([*self._critic_adams, self._actor_adam], total)
        cost = torch.cat([one.cost for one in acting]).mean().detach()
        metrics |= {"critic_gradient_norm": norms[0], "actor_loss": -value, self._cost_name: cost}
        return metrics | {"actor_gradient_norm": actor_norm}

    def _critic_loss(
        self, batch: Batch, here: "Acting | None", there: "Acting | None"
    ) -> tuple[Metrics, Tensor, Tensor]:
        """Metrics, the loss with its regularisers, and the mean V(s) of all sources."""
        config = self._config
        actions = self.policy.scale_actions(batch.actions)
        if config.action_gradient_at is ActionGradientAt.RECORDED:
            actions.requires_grad_(True)
        expert = self._values(batch, self.noise, here, actions)
        supplementary = None
        if batch.supplementary is not None:
            supplementary = self._values(batch.supplementary, self.noise, there)
        initial_v = None
        if config.value_term is ValueTerm.INITIAL:
            assert batch.initial_observations is not None
            initial_v = self._value(batch.initial_observations, self.noise, self.critic).reshape(-1)
        loss = critic_loss(config, self._divergence.phi, expert, supplementary, initial_v)
        metrics, total = {"loss": loss.detach()}, loss
        theirs = None if here is None else here.actions
        for name, weight, piece in self._pieces.of(batch, expert.q, actions, theirs, self.noise):
            metrics[name] = piece.detach()
            total = total + weight * piece
        value = mixed(expert.v.mean(), None if supplementary is None else supplementary.v.mean())
        return metrics, total, value.detach()

    def _acting_on(self, batch: Batch | None) -> Acting | None:
        """What the policy does at a source's observations, with its gradient; None where nothing asks."""
        asked = self.value is None or self._config.advantage_weights is None
        return None if batch is None or not asked else self._acting(batch.observations, self.noise)

    def _acting(self, observations: Tensor, noise: Noise) -> Acting:
        here = self.policy.distribution(observations)
        drawn = normal(noise, here.mean)
        if self._config.entropy is EntropyReference.UNIFORM:
            return Acting(*here.sample_with_log_prob(drawn))
        actions = here.sample(drawn)
        if self._config.entropy is EntropyReference.OFF:
            return Acting(actions, torch.zeros_like(actions[:, 0]))
        return Acting(actions, self._distance_to_prior(here, observations))

    def _values(self, batch: Batch, noise: Noise, here: Acting | None, actions: Tensor | None = None) -> SourceValues:
        """What critics and policy say of one source.

        `here`: what the policy does at its observations; `actions`: its scaled ones, where a gradient is wanted.
        """
        config = self._config
        observations = self.policy.standardise(batch.observations)
        if actions is None:
            actions = self.policy.scale_actions(batch.actions)
        q = self.critic(observations, actions).reshape(-1)
        v = self._value(batch.observations, noise, self.critic, here)
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.polyak_rate is None):
            next_v = self._pessimistic(self._value(batch.next_observations, noise, self.target_critic))
            next_v = bounded(next_v, config.target_bound)
        behind = absorbing_value(config, self.absorbing.value)
        next_v, discounts = bootstrap(next_v, batch.terminations, config.gamma, behind)
        return SourceValues(
            q=q,
            v=flat(v, self._members),
            next_v=flat(next_v, self._members),
            discounts=flat(discounts, self._members),
            terminations=batch.terminations,
            gamma=config.gamma,
            tail=self.absorbing.value if config.absorbing_value is AbsorbingValue.LEARNED else None,
            coherent_rewards=self._coherent(batch, actions),
        )

    def _value(
        self, observations: Tensor, noise: Noise, critic: CriticEnsemble, acting: Acting | None = None
    ) -> Tensor:
        """Soft value at raw observations by each critic, (N, B); in-sample, (1, B), without a gradient."""
        standardised = self.policy.standardise(observations)
        if self.value is not None:
            with torch.no_grad():
                in_sample: Tensor = self.value(standardised)
                return in_sample.unsqueeze(0)
        if acting is None:
            with torch.no_grad():
                acting = self._acting(observations, noise)
        q: Tensor = critic(standardised, acting.actions)
        return q - self._config.temperature * acting.cost

    def _distance_to_prior(self, here: ContinuousActionDistribution, observations: Tensor) -> Tensor:
        """KL divergence of the policy from its prior, nats, (B,)."""
        assert self.prior is not None
        with torch.no_grad():
            prior = self.prior.distribution(observations)
        return here.kl(prior)  # type: ignore[arg-type]

    def _coherent(self, batch: Batch, actions: Tensor) -> Tensor | None:
        """[CSIL23]'s reward: weight * log(cloned density / uniform density), bounded; of each critic's row."""
        if self._config.objective is not ObjectiveKind.COHERENT:
            return None
        assert self.prior is not None
        with torch.no_grad():
            size = actions.shape[-1]
            here = self.prior.distribution(batch.observations)
            if isinstance(here, ClippedGaussian):
                density = bounded_log_density(here.mean, here.std, actions)
            else:
                density = here.log_prob(actions)
            return flat(coherent_reward(density + size * LOG_UNIFORM, self._config.coherence, size), self._members)

    def _update_actor(self, batch: Batch, here: Acting | None, there: Acting | None) -> Metrics:
        if self._config.advantage_weights is not None:
            metrics = self._advantage_loss(batch)
        else:
            assert here is not None
            metrics = self._soft_q_loss(batch, here, there)
        loss = metrics["actor_loss"]
        if self._config.anchor is not None:
            loss = loss + anchor_loss(self._config.anchor, self.policy, batch)
        (norm,) = descend([self._actor_adam], loss)
        return {name: value.detach() for name, value in metrics.items()} | {"actor_gradient_norm": norm}

    def _soft_q_loss(self, batch: Batch, here: Acting, there: Acting | None) -> Metrics:
        """-E[V(s)] as a function of the policy, over all observations that the critic sees. Source: [SAC18] eq. 7."""
        observations, actions, cost = batch.observations, here.actions, here.cost
        if there is not None:
            assert batch.supplementary is not None
            observations = torch.cat([observations, batch.supplementary.observations])
            actions, cost = torch.cat([actions, there.actions]), torch.cat([cost, there.cost])
        q = self._pessimistic(self.critic(self.policy.standardise(observations), actions))
        scale = None if self._config.anchor is None else self._config.anchor.scale_q
        loss = -(scaled_q(q, scale) - self._config.temperature * cost).mean()
        return {"actor_loss": loss, self._cost_name: cost.mean()}

    @property
    def _cost_name(self) -> str:
        return "kl_to_prior" if self._config.entropy is EntropyReference.PRIOR else "entropy_cost"

    def _advantage_loss(self, batch: Batch) -> Metrics:
        """Cloning of recorded actions, weighted by their advantage. Source: [AWR19] eq. 8."""
        weights_config = self._config.advantage_weights
        assert weights_config is not None
        losses, means = [], []
        for source in (batch, batch.supplementary if weights_config.on is Source.MIXTURE else None):
            if source is None:
                continue
            with torch.no_grad():
                observations = self.policy.standardise(source.observations)
                q = self._pessimistic(self.critic(observations, self.policy.scale_actions(source.actions)))
                v = self._pessimistic(self._value(source.observations, self.noise, self.critic))
            weights = advantage_weights(q - v, weights_config.temperature, weights_config.largest)
            losses.append(weighted_cloning(cloning_errors(self.policy, source, self._cloning()), weights))
            means.append(weights.mean())
        metrics = {"actor_loss": mixed(losses[0], losses[1] if len(losses) > 1 else None), "expert_weight": means[0]}
        return metrics | ({"supplementary_weight": means[1]} if len(means) > 1 else {})

    def _cloning(self) -> CloningLoss:
        return CloningLoss.LIKELIHOOD if self.policy.learnt_std else CloningLoss.CENSORED

    def _pessimistic(self, q: Tensor) -> Tensor:
        return pessimistic(q, self._config.ensemble.pessimism, self._config.ensemble.deviations)
