"""A training run's settings, to and from TOML, with a hash that names it; and how settings are chosen and changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator

from iq_offline.config.base import NONE, AlgorithmConfig, FrozenModel
from iq_offline.config.pictures import PictureEncoder
from iq_offline.credentials import public_name
from iq_offline.errors import ConfigError, did_you_mean
from iq_offline.methods import METHODS, Method

Choice = TypeVar("Choice", bound=StrEnum)
LIST_METHODS = "iq-offline methods"
"""The command that lists the methods; with a method, its settings."""
RENAMED = {
    "advantage_weights.largest": "max_weight",
    "alarm_q": "max_abs_q",
    "anchor.squared_error": "behavioural_cloning.weight",
    "in_sample_value.largest": "max_exponent",
    "more_demonstrations": "accept_episodes",
}
"""Keys of earlier versions whose present spelling is far from theirs."""


def choice(kind: type[Choice], text: str, option: str) -> Choice:
    """The choice of that name. Raises ConfigError where there is none, with the nearest."""
    if text not in list(kind):
        raise ConfigError(f"unknown {option} '{text}'", did_you_mean(text, kind))
    return kind(text)


class Selection(StrEnum):
    """How the expert's episodes are chosen. TOP takes those of the highest return, and so reads rewards."""

    RANDOM = "random"
    TOP = "top"


class SubsampleFrom(StrEnum):
    """From which step of an episode every k-th is kept.

    FIRST: its first, as [IQ21] does. RANDOM: one of its first k, drawn by the seed for each episode.
    """

    FIRST = "first"
    RANDOM = "random"


class Device(StrEnum):
    """Where to train. AUTO is CUDA where there is one, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Compile(StrEnum):
    """Whether updates are compiled. AUTO: where there are enough of them to win the compiler's time back."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class TrainConfig(FrozenModel):
    """Everything that decides what a training run computes."""

    dataset: str
    """A catalogue id, a Minari id, a URL or a path."""
    method: str
    seed: int = Field(0, ge=0, lt=2**62)
    """Chooses the demonstrations, the initial weights and the batches."""
    demos: int | None = Field(None, ge=1)
    """Expert episodes to learn from; all if not given."""
    subsample: int = Field(1, ge=1, le=10**9)
    """Keep every k-th transition of each episode, each with its true successor."""
    subsample_from: SubsampleFrom = SubsampleFrom.FIRST
    """Where an episode's every k-th starts: first (its first step), or random (one of its first k)."""
    select: Selection = Selection.RANDOM
    """Episodes: random, or top (those of the highest return: reads rewards)."""
    held_out: float | None = Field(None, gt=0, lt=1)
    """Share of the episodes to set aside and watch the cloning loss on, between 0 and 1."""
    supplementary: tuple[str, ...] = ()
    """Reward-free data of any quality, named as the dataset is; repeat it for several."""
    start_from: str | None = None
    """A run of bc or iq whose policy iq-online starts from: its folder."""
    device: Device = Device.AUTO
    """Where to train: auto (CUDA where there is one), cpu or cuda."""
    threads: int = Field(1, ge=1)
    """Threads of the processor; one makes runs repeatable."""
    compile: Compile = Compile.AUTO
    """Compiled updates: auto (in long runs), on or off."""
    encoder: PictureEncoder = PictureEncoder.NATURE
    """Layers that encode pictures: nature (three convolutions) or impala (residual blocks)."""
    shift: int = Field(0, ge=0, le=1000)
    """Move pictures at random by up to so many pixels in each batch; 0: not at all."""
    algorithm: SerializeAsAny[AlgorithmConfig]

    @field_validator("method")
    @classmethod
    def _registered(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"no method is called {method}: {did_you_mean(method, METHODS, LIST_METHODS)}")
        return method

    @field_validator("algorithm", mode="before")
    @classmethod
    def _by_name(cls, algorithm: Any) -> Any:
        """The class that `name` tells, which the registry of methods knows."""
        if not isinstance(algorithm, Mapping):
            return algorithm
        for config in config_classes():
            if config.model_fields["name"].default == algorithm.get("name"):
                return config.model_validate(algorithm)
        raise ValueError(f"no method has settings called {algorithm.get('name')!r}: it was made by another version")

    @field_validator("dataset")
    @classmethod
    def _named(cls, dataset: str) -> str:
        if not dataset.strip():
            raise ValueError("a dataset's id or path is needed")
        return public_name(dataset)

    @field_validator("supplementary")
    @classmethod
    def _public(cls, datasets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(public_name, datasets))

    def to_toml(self) -> str:
        """The configuration as TOML; a setting that is off is written as `none`."""
        import tomlkit

        return tomlkit.dumps(_without_null(self.model_dump(mode="json")))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The configuration that `to_toml` wrote."""
        import tomllib

        return cls.from_values(tomllib.loads(text))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of a TOML document's tables. Raises ValueError that names the first key which is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{key}: {first['msg']}") from None

    def content_hash(self, *sha256: str) -> str:
        """First 12 hex digits of a SHA-256 over the configuration and the data, whatever their path and the machine.

        `sha256`: of the expert's dataset, of the supplementary ones, and of a policy that training starts from.
        """
        content: dict[str, Any] = {"sha256": sha256}
        elsewhere = {"dataset", "supplementary", "start_from", "device", "threads", "compile"}
        content |= self.model_dump(mode="json", exclude=elsewhere)
        for name in ("encoder", "shift"):  # a run from vectors has the hash that it had without them
            if content[name] == type(self).model_fields[name].default:
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def method_of(name: str) -> Method:
    """The method of that name. Raises ConfigError where there is none, with the nearest."""
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}'", did_you_mean(name, METHODS, LIST_METHODS))
    return METHODS[name]


def algorithm_class(method: str, *, discrete: bool) -> type[AlgorithmConfig]:
    """The configuration class of a method for a discrete or a continuous action space."""
    found: type[AlgorithmConfig] = method_of(method).config_class(discrete=discrete)
    return found


def config_classes() -> list[type[AlgorithmConfig]]:
    """Every method's configuration classes, each once."""
    return list(dict.fromkeys(config for method in METHODS.values() for config in method.config_classes()))


def algorithm_config(
    method: str,
    *,
    discrete: bool,
    presets: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    overrides: Sequence[str] = (),
) -> AlgorithmConfig:
    """The method's settings, then each preset's values for its configuration, then `key=value` overrides.

    `presets`: values by the configuration's name. Keys may be dotted (`prior.updates=1000`); a part that an earlier
    preset has turned off stays off.
    Raises ConfigError for an unknown key, with the nearest valid ones, and for a value that does not fit.
    """
    model = algorithm_class(method, discrete=discrete)
    values: dict[str, Any] = {}
    for preset in ({model.model_fields["name"].default: method_of(method).settings}, *presets):
        for key, value in preset.get(model.model_fields["name"].default, {}).items():
            if values.get(key.partition(".")[0]) != NONE or "." not in key:
                _assign(values, model, method, key, value)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override} has no '='", "write it as --set key=value")
        _assign(values, model, method, key.strip(), _parse(text.strip()))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid_value(error, method) from None


def updates_key(model: type[BaseModel]) -> str:
    """The key of the number of updates that `--updates` sets: the method's own, else that of its cloning."""
    return "updates" if "updates" in model.model_fields else "cloning.updates"


def valid_keys(model: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel] | None]:
    """Dotted keys that `--set` accepts for a configuration class; a part that may be off is a key itself."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, field in model.model_fields.items():
        if name == "name":
            continue
        inner, optional = nested(field.annotation)
        if inner is not None:
            keys |= valid_keys(inner, f"{prefix}{name}.")
        if inner is None or optional:
            keys[prefix + name] = inner
    return keys


def nested(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The configuration class of a field that holds one, and whether it may be None."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    classes = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return (classes[0] if classes else None), type(None) in options


def _without_null(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_null(value) if isinstance(value, dict) else NONE if value is None else value
        for key, value in content.items()
    }


def _assign(values: dict[str, Any], model: type[BaseModel], method: str, key: str, value: Any) -> None:
    keys = valid_keys(model)
    if key not in keys:
        renamed, listed_by = RENAMED.get(key), f"{LIST_METHODS} {method}"
        found = f"did you mean {renamed}? all of them: {listed_by}" if renamed in keys else None
        remedy = found or did_you_mean(key, keys, listed_by)
        raise ConfigError(f"unknown key '{key}' for method {method}", remedy)
    if keys[key] is not None and value not in (NONE, {}):
        inner = [name for name in keys if name.startswith(f"{key}.")]
        raise ConfigError(f"'{key}' is a group of settings", f"set one of them ({', '.join(inner)}), or {key}=none")
    *path, leaf = key.split(".")
    default: Any = {name: field.default for name, field in model.model_fields.items()}
    for part in path:
        default = default.get(part)
        default = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        default = default if isinstance(default, dict) else {}
        inside = values.get(part)
        values[part] = inside if isinstance(inside, dict) else _without_null(default)
        values = values[part]
    values[leaf] = value


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _invalid_value(error: ValidationError, method: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return ConfigError(f"settings of method {method} do not go together", str(first["ctx"]["error"]))
    remedy = "write it as a list, such as [256, 256]" if first["type"] == "tuple_type" else first["msg"]
    return ConfigError(f"{key}={first.get('input')!r} does not fit method {method}", remedy)
