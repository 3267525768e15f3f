"""Frozen, typed configurations: what a training run is made of, to and from TOML, with a hash that names it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iq_offline.errors import ConfigError, nearest

NONE = "none"


class FrozenModel(BaseModel):
    """A configuration: frozen, and with no keys beyond its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """TOML has no null: `none` stands for a setting that is off."""
        return {key: None if value == NONE else value for key, value in values.items()}


class Method(StrEnum):
    """What `train --method` can train."""

    BC = "bc"
    IQ = "iq"


class Selection(StrEnum):
    """How the expert's episodes are chosen. TOP takes those of the highest return, and so reads rewards."""

    RANDOM = "random"
    TOP = "top"


class Device(StrEnum):
    """Where to train. AUTO is CUDA where there is one, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Activation(StrEnum):
    """Hidden units of a network."""

    TANH = "tanh"
    RELU = "relu"
    SILU = "silu"


HiddenSizes = tuple[int, ...]


class BCConfig(FrozenModel):
    """Behavioural cloning, whatever the actions."""

    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    """At the first update."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    hidden_sizes: HiddenSizes = (256, 256)
    activation: Activation = Activation.TANH


class ContinuousBCConfig(BCConfig):
    """Behavioural cloning of continuous actions: censored squared error of an un-squashed mean."""

    name: Literal["bc-continuous"] = "bc-continuous"
    learning_rate: float = Field(3e-3, gt=0)


class DiscreteBCConfig(BCConfig):
    """Behavioural cloning of discrete actions: cross entropy."""

    name: Literal["bc-discrete"] = "bc-discrete"


class DiscreteIQConfig(FrozenModel):
    """Offline IQ-Learn with a soft Q-function over discrete actions, [IQ21] eq. 12."""

    name: Literal["iq-discrete"] = "iq-discrete"
    updates: int = Field(5000, ge=1)
    """Gradient updates; the learning rate falls to zero along a cosine over them."""
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    temperature: float = Field(0.1, gt=0)
    """Weight of the policy's entropy in the soft value."""
    reward_penalty: float = Field(0.5, gt=0)
    """Chi-squared coefficient c of phi(x) = x - x^2 / (4c)."""
    polyak_rate: float | None = Field(0.005, gt=0, le=1)
    """Share of the Q-function that enters its target at each update; None: no target, a gradient through V(s')."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|: by default that of rewards up to 2c, where phi is greatest, for ever. None: unbounded."""
    hidden_sizes: HiddenSizes = (256, 256)
    activation: Activation = Activation.TANH


class ContinuousIQConfig(FrozenModel):
    """Offline IQ-Learn with an actor, a KL-to-BC soft value, a LayerNorm critic and an action-gradient penalty."""

    name: Literal["iq-continuous"] = "iq-continuous"
    updates: int = Field(2000, ge=0)
    """Updates of critic and actor together, after the prior's own; both learning rates fall to zero along a cosine."""
    batch_size: int = Field(256, ge=1)
    actor_learning_rate: float = Field(3e-4, gt=0)
    critic_learning_rate: float = Field(3e-4, gt=0)
    gamma: float = Field(0.99, ge=0, lt=1)
    """Discount per environment step."""
    temperature: float = Field(3.0, ge=0)
    """Weight of KL(policy || BC prior) in the soft value and in the actor's loss."""
    policy_std: float = Field(0.135, gt=0)
    """Fixed standard deviation of policy and prior, in units where the action bounds are -1 and 1."""
    reward_penalty: float = Field(0.5, gt=0)
    """Chi-squared coefficient c of phi(x) = x - x^2 / (4c)."""
    action_gradient_weight: float = Field(0.1, ge=0)
    """Weight of E |dQ/da|^2 at the expert's actions (conservative: keeps Q flat around the data)."""
    polyak_rate: float = Field(0.005, gt=0, le=1)
    """Share of the critic that enters its target at each update."""
    target_bound: float | None = Field(100.0, gt=0)
    """Largest |V(s')|: by default that of rewards up to 2c, where phi is greatest, for ever. None: unbounded."""
    hidden_sizes: HiddenSizes = (256, 256)
    critic_activation: Activation = Activation.RELU
    critic_layer_norm: bool = True
    prior: ContinuousBCConfig = ContinuousBCConfig()
    """The cloned policy that starts the actor and anchors the soft value."""


AlgorithmConfig = ContinuousBCConfig | DiscreteBCConfig | ContinuousIQConfig | DiscreteIQConfig


class TrainConfig(FrozenModel):
    """Everything that decides what a training run computes."""

    dataset: str
    method: Method
    seed: int = Field(0, ge=0)
    """Chooses the demonstrations, the initial weights and the batches."""
    demos: int | None = Field(None, ge=1)
    """Expert episodes to learn from; none given means all."""
    subsample: int = Field(1, ge=1)
    """Keep every k-th transition of each chosen episode, each with its true successor."""
    select: Selection = Selection.RANDOM
    held_out: float | None = Field(None, gt=0, lt=1)
    """Share of the chosen episodes that is set aside, to watch the cloning loss on."""
    supplementary: tuple[str, ...] = ()
    """Reward-free data of any quality."""
    device: Device = Device.AUTO
    threads: int = Field(1, ge=1)
    algorithm: AlgorithmConfig = Field(discriminator="name")

    @field_validator("dataset")
    @classmethod
    def _named(cls, dataset: str) -> str:
        if not dataset.strip():
            raise ValueError("a dataset's id or path is needed")
        return dataset

    def to_toml(self) -> str:
        """The configuration as TOML; a setting that is off is written as `none`."""
        import tomlkit

        return tomlkit.dumps(_without_null(self.model_dump(mode="json")))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The configuration that `to_toml` wrote."""
        import tomllib

        return cls.model_validate(tomllib.loads(text))

    def content_hash(self, *sha256: str) -> str:
        """First 12 hex digits of a SHA-256 over the configuration and the data, whatever their path and the machine.

        `sha256`: of the expert's dataset, then of the supplementary ones.
        """
        content: dict[str, Any] = {"sha256": sha256}
        content |= self.model_dump(mode="json", exclude={"dataset", "supplementary", "device", "threads"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def algorithm_class(method: Method, *, discrete: bool) -> type[AlgorithmConfig]:
    """The configuration class of a method for a discrete or a continuous action space."""
    if method is Method.BC:
        return DiscreteBCConfig if discrete else ContinuousBCConfig
    return DiscreteIQConfig if discrete else ContinuousIQConfig


def algorithm_config(
    method: Method,
    *,
    discrete: bool,
    preset: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Sequence[str] = (),
) -> AlgorithmConfig:
    """Defaults of the method, then the preset's values for its configuration, then `key=value` overrides.

    `preset`: values by the configuration's name. Keys may be dotted (`prior.updates=1000`).
    Raises ConfigError for an unknown key, with the nearest valid ones, and for a value that does not fit.
    """
    model = algorithm_class(method, discrete=discrete)
    values: dict[str, Any] = {}
    for key, value in (preset or {}).get(model.model_fields["name"].default, {}).items():
        _assign(values, model, key, value)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override} has no '='", "write it as --set key=value")
        _assign(values, model, key.strip(), _parse(text.strip()))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid_value(error, method) from None


def valid_keys(model: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel] | None]:
    """Dotted keys that `--set` accepts for a configuration class."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, field in model.model_fields.items():
        if name == "name":
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= valid_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = None
    return keys


def _without_null(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_null(value) if isinstance(value, dict) else NONE if value is None else value
        for key, value in content.items()
    }


def _assign(values: dict[str, Any], model: type[BaseModel], key: str, value: Any) -> None:
    keys = valid_keys(model)
    if key not in keys:
        raise ConfigError(f"unknown key '{key}' for this method", f"nearest valid keys: {nearest(key, keys)}")
    *path, leaf = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[leaf] = value


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _invalid_value(error: ValidationError, method: Method) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    remedy = "write it as a list, such as [256, 256]" if first["type"] == "tuple_type" else first["msg"]
    return ConfigError(f"{key}={first.get('input')!r} does not fit method {method}", remedy)
