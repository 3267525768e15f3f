"""What every configuration is: frozen, with no keys but its own; and the choices that several share."""

from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from iq_offline.errors import ConfigError, nearest

NONE = "none"
Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], text: str, option: str) -> Choice:
    """The choice of that name. Raises ConfigError where there is none, with the nearest."""
    if text not in list(kind):
        raise ConfigError(f"unknown {option} '{text}'", f"valid: {nearest(text, kind)}")
    return kind(text)


class FrozenModel(BaseModel):
    """A configuration: frozen, and with no keys beyond its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """TOML has no null: `none` stands for a setting that is off."""
        if not isinstance(values, dict):
            return values
        return {key: None if value == NONE else value for key, value in values.items()}


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


class Activation(StrEnum):
    """Hidden units of a network."""

    TANH = "tanh"
    RELU = "relu"
    SILU = "silu"
    ELU = "elu"


class Precision(StrEnum):
    """Of the products of a perceptron's hidden layers in training. Parameters and all else are 32-bit in either."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


HiddenSizes = tuple[Annotated[int, Field(ge=1)], ...]


class ActionHead(StrEnum):
    """How a continuous policy makes an action from its network's mean.

    CLIPPED_GAUSSIAN: un-squashed, clipped to the bounds when executed. TANH_GAUSSIAN: squashed. DETERMINISTIC: the
    clipped mean itself.
    """

    CLIPPED_GAUSSIAN = "clipped-gaussian"
    TANH_GAUSSIAN = "tanh-gaussian"
    DETERMINISTIC = "deterministic"
