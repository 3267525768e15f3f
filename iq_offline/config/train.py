"""A training run's settings, to and from TOML, with a hash that names it; and how settings are chosen and changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from iq_offline.config.base import NONE, Device, FrozenModel, Selection
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.iq import ContinuousIQConfig, DiscreteIQConfig
from iq_offline.errors import ConfigError, nearest


class Method(StrEnum):
    """What `train --method` can train."""

    BC = "bc"
    IQ = "iq"


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
