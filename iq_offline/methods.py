"""The registry of methods: the only list of what `train --method` accepts.

It imports nothing beyond the standard library, so that help texts can read it. A new method is one entry here, a file
in `algorithms/`, a configuration in `config/`, a page in `docs/` and a test (CONTRIBUTING.md, "Add a method").
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class ActionKind:
    """A method for one kind of actions: where its configuration class and its learner are, as `module:name`.

    `learner(config, spec)` makes the learner, `learner(config, spec, prior)` that of a method with a prior; None for a
    method whose training is more than updates of a learner (`baselines.fit`).
    """

    config: str
    learner: str | None = None


@dataclass(frozen=True)
class Method:
    """A method by the name that users give it."""

    name: str
    summary: str
    """One sentence, with the source."""
    continuous: ActionKind | None = None
    """None for a method of discrete actions only."""
    discrete: ActionKind | None = None
    """None for a method of continuous actions only."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the configuration's defaults, by dotted key."""

    def config_class(self, *, discrete: bool) -> Any:
        """The configuration class for that kind of actions; else the only one there is."""
        kinds = (self.discrete, self.continuous) if discrete else (self.continuous, self.discrete)
        return next(_load(kind.config) for kind in kinds if kind is not None)

    @property
    def learns_reward(self) -> bool:
        """Whether a reward can be recovered from what it learns: so is every method with a learner of its own."""
        return any(kind is not None and kind.learner is not None for kind in (self.continuous, self.discrete))

    def config_classes(self) -> Iterator[Any]:
        """Its configuration classes, one a kind of actions."""
        for kind in (self.continuous, self.discrete):
            if kind is not None:
                yield _load(kind.config)


def _methods(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


IQ_LEARNERS = "iq_offline.algorithms.build_iq:build", "iq_offline.algorithms.build_iq:build_discrete"


def _both_kinds(module: str, name: str, learners: tuple[str, str] | None = None) -> tuple[ActionKind, ActionKind]:
    """Continuous and discrete kind of a method; `learners` are its file's classes unless they are given."""
    file, configs = f"iq_offline.algorithms.{module}", f"iq_offline.config.{module}"
    continuous, discrete = learners or (f"{file}:{name}Learner", f"{file}:Discrete{name}Learner")
    return ActionKind(f"{configs}:{name}Config", continuous), ActionKind(f"{configs}:Discrete{name}Config", discrete)


def _peer(name: str, summary: str, config: str) -> Method:
    module = "iq_offline.config.baselines"
    return Method(name, summary, ActionKind(f"{module}:Continuous{config}"), ActionKind(f"{module}:Discrete{config}"))


LABELLERS = {
    "seabo": "rewards by the distance to the nearest demonstrated transition [SEABO24]",
    "otr": "rewards by optimal transport to the demonstrations [OTR23]",
    "uds": "reward 1 for demonstrations and 0 for supplementary data [UDS22]",
    "oracle": "recorded rewards: an oracle, no imitation",
}
TRAINERS = {"iql": "IQL [IQL22]", "td3bc": "TD3+BC [TD3BC21]", "cql": "CQL [CQL20]"}

METHODS: dict[str, Method] = _methods(
    Method(
        "bc",
        "Behavioural cloning of the demonstrations alone: the baseline of every comparison.",
        ActionKind("iq_offline.config.cloning:ContinuousBCConfig"),
        ActionKind("iq_offline.config.cloning:DiscreteBCConfig"),
    ),
    Method(
        "iq",
        "IQ-Learn [IQ21] that starts from a behavioural clone, with a soft value anchored to the clone.",
        *_both_kinds("iq", "IQ", IQ_LEARNERS),
    ),
    Method(
        "iq-paper",
        "IQ-Learn as in the paper [IQ21], offline: without a clone and without conservative regularisers.",
        *_both_kinds("iq", "IQPaper", IQ_LEARNERS),
    ),
    Method(
        "iq-online",
        "IQ-Learn [IQ21] that acts in the data's environment while it learns, half from what it experiences.",
        ActionKind("iq_offline.config.online:OnlineIQConfig", "iq_offline.algorithms.iq_online:OnlineIQLearner"),
        ActionKind(
            "iq_offline.config.online:DiscreteOnlineIQConfig",
            "iq_offline.algorithms.iq_online:DiscreteOnlineIQLearner",
        ),
    ),
    Method(
        "sqil-online",
        "Soft Q imitation learning [SQIL20], which acts: reward 1 for the expert, 0 for what it experiences.",
        ActionKind(
            "iq_offline.config.sqil_online:OnlineSQILConfig", "iq_offline.algorithms.sqil_online:OnlineSQILLearner"
        ),
        ActionKind(
            "iq_offline.config.sqil_online:DiscreteOnlineSQILConfig",
            "iq_offline.algorithms.sqil_online:DiscreteOnlineSQILLearner",
        ),
    ),
    Method(
        "iq-cql",
        "The method iq with the CQL regulariser [CQL20], also on supplementary observations.",
        *_both_kinds("iq", "IQ", IQ_LEARNERS),
        settings={"cql.weight": 1.0},
    ),
    Method(
        "iq-awr",
        "The IQ-Learn objective with an actor trained by advantage-weighted regression [AWR19].",
        *_both_kinds("awr", "AWR"),
    ),
    Method(
        "ls-iq",
        "Least-squares IQ-Learn [LSIQ23]: fixed rewards, clipped targets, a learnt value of the absorbing state.",
        *_both_kinds("ls_iq", "LSIQ"),
    ),
    Method(
        "csil",
        "Coherent soft imitation [CSIL23]: Q-learning with the log-density ratio of the clone as reward.",
        *_both_kinds("csil", "CSIL"),
    ),
    Method(
        "recoil",
        "ReCOIL [RECOIL24]: fixed rewards by source, an in-sample value, an advantage-weighted actor.",
        *_both_kinds("recoil", "ReCOIL"),
    ),
    Method(
        "sprinql",
        "After SPRINQL [SPRINQL24]: IQ-Learn on the mixture of both sources, with reference rewards, and CQL.",
        *_both_kinds("sprinql", "SPRINQL"),
    ),
    Method(
        "iq-mixture",
        "IQ-Learn [IQ21] with value term and penalty over demonstrations and supplementary data.",
        ActionKind("iq_offline.config.iq_mixture:IQMixtureConfig", "iq_offline.algorithms.recoil:ReCOILLearner"),
        ActionKind(
            "iq_offline.config.iq_mixture:DiscreteIQMixtureConfig",
            "iq_offline.algorithms.iq_mixture:DiscreteIQMixtureLearner",
        ),
    ),
    _peer("bc-all", "Behavioural cloning of expert and supplementary transitions alike.", "CloneAllConfig"),
    _peer(
        "weighted-bc",
        "Behavioural cloning with supplementary transitions weighted by their similarity to the expert's.",
        "WeightedBCConfig",
    ),
    _peer(
        "filtered-bc",
        "Behavioural cloning of the demonstrations and of the supplementary episodes most similar to them.",
        "FilteredBCConfig",
    ),
    _peer(
        "recovery-bc",
        "Behavioural cloning of the demonstrations and of what leads back to their states, after [ILID24].",
        "RecoveryBCConfig",
    ),
    *(
        Method(
            f"{labeller}-{trainer}",
            f"Offline reinforcement learning: {rewards}; trained by {algorithm}.",
            ActionKind("iq_offline.config.baselines:RewardLabelledConfig"),
            settings={"labeller": "true" if labeller == "oracle" else labeller, "trainer": trainer},
        )
        for labeller, rewards in LABELLERS.items()
        for trainer, algorithm in TRAINERS.items()
    ),
)


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def learner_class_of(config: object) -> Callable[..., Any]:
    """What makes the learner of a configuration (`ActionKind`)."""
    for method in METHODS.values():
        for kind in (method.continuous, method.discrete):
            if kind is not None and kind.learner is not None and _load(kind.config) is type(config):
                return _load(kind.learner)  # type: ignore[no-any-return]
    raise LookupError(f"no method trains a {type(config).__name__}")
