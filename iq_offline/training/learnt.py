"""From data or a run folder to a method's learner, whose networks the registry of methods knows how to build."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from iq_offline.algorithms.actor_critic import ActorCritic
from iq_offline.algorithms.build import NetworkSpec, clone_policy
from iq_offline.algorithms.encoders import with_precision
from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.algorithms.scaling import fit_action_scale, fit_standardiser
from iq_offline.algorithms.soft_q import SoftQLearner
from iq_offline.batch import Batch
from iq_offline.config.pictures import PictureEncoder
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.data.spaces import ActionSpace, ContinuousActions
from iq_offline.data.strict_json import first_line
from iq_offline.errors import RunError
from iq_offline.methods import learner_class_of
from iq_offline.training.batches import Demonstrations, SupplementarySampler
from iq_offline.training.run_folder import CHECKPOINT, CONFIG, RunFolder
from iq_offline.training.tensor_files import AGAIN, part

QLearner = ActorCritic | SoftQLearner


@dataclass(frozen=True)
class Data:
    """What a run learns from: expert transitions and, where the method reads them, supplementary ones."""

    expert: Demonstrations
    space: ActionSpace
    device: torch.device
    supplementary: SupplementarySampler | None = None
    encoder: PictureEncoder = PictureEncoder.NATURE
    """Layers for pictures."""
    shift: int = 0
    """Pixels by which pictures are moved at most."""

    def shifted(self, batches: Iterator[Batch], seed: int) -> Iterator[Batch]:
        """The same batches, the pictures of their observations and successors moved at random."""
        layout, random = self.expert.layout, generator(seed, Stream.SHIFTS)
        if not self.shift or not layout.pictures:
            return batches
        from iq_offline.algorithms.pictures import shifted

        def moved(observations: Tensor) -> Tensor:
            return shifted(observations, layout, self.shift, random)

        return (_of_all_observations(moved, batch) for batch in batches)

    def spec(self, seed: int) -> NetworkSpec:
        """Of networks for these data: the scaling is that of all training observations together.

        That of pictures is the demonstrations' alone.
        """
        observations = self.expert.observations().cpu()
        if self.supplementary is not None:
            observations = torch.cat([observations, self.supplementary.observations().cpu()])
        layout, space = replace(self.expert.layout, encoded_by=self.encoder), self.space
        standardiser = fit_standardiser(observations, layout, mean_pixels=self.expert.proper.mean_pixels())
        if isinstance(space, ContinuousActions):
            actions = fit_action_scale(space.low, space.high, self.expert.proper.actions().cpu())
            return NetworkSpec(layout, standardiser, actions, seed, self.device)
        return NetworkSpec(layout, standardiser, space.count, seed, self.device)


def build_learner(config: QLearningConfig, spec: NetworkSpec, prior: Policy | None) -> QLearner:
    """A method's learner with initial weights."""
    learner = _new_learner(config, spec, prior)
    for network in learner.modules.values():
        with_precision(network, config.precision)
    return learner


def learner_of(run: RunFolder) -> QLearner:
    """The learner of a finished run, on the CPU: its networks hold what the checkpoint does, and need no gradient.

    Raises RunError where the checkpoint does not hold the networks that the settings describe.
    """
    config, tensors, spec = run.config.algorithm, run.checkpoint(), NetworkSpec.of_policy(run.policy())
    assert isinstance(config, QLearningConfig)
    learner = _new_learner(config, spec, _prior(config, spec))
    for name, module in learner.modules.items():
        _fill(module, part(tensors, name))
    held = learner.tensors()
    if lost := [name for name in held if name in tensors and not torch.equal(held[name], tensors[name])]:
        raise _other_networks(f"{lost[0]} is shared with another network")
    return learner


def prior_of(run: RunFolder) -> Policy | None:
    """The run's cloned prior, or None where it has none."""
    if not isinstance(run.config.algorithm, QLearningConfig):
        return None
    prior = learner_of(run).modules.get("prior")
    assert prior is None or isinstance(prior, Policy)
    return prior


def _new_learner(config: QLearningConfig, spec: NetworkSpec, prior: Policy | None) -> QLearner:
    learner: QLearner = learner_class_of(config)(config, spec, *([] if prior is None else [prior]))
    return learner


def _prior(config: Any, spec: NetworkSpec) -> Any:
    settings = getattr(config, "prior", None)
    return None if settings is None else clone_policy(settings, spec)


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise _other_networks(first_line(error)) from None
    module.eval()
    module.requires_grad_(False)


def _other_networks(why: str) -> RunError:
    return RunError(f"{CHECKPOINT} does not hold the networks that {CONFIG} describes: {why}", AGAIN)


def _of_all_observations(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """The same batch with the function of all its observations."""
    initial, supplementary = batch.initial_observations, batch.supplementary
    return replace(
        batch,
        observations=function(batch.observations),
        next_observations=function(batch.next_observations),
        supplementary=None if supplementary is None else _of_all_observations(function, supplementary),
        initial_observations=None if initial is None else function(initial),
    )
