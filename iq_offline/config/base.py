"""What every configuration is: frozen, with no keys but its own; and the choices that several share."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

NONE = "none"


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

    CLIPPED_GAUSSIAN: un-squashed, clipped to the bounds when executed. TANH_GAUSSIAN: squashed.
    """

    CLIPPED_GAUSSIAN = "clipped-gaussian"
    TANH_GAUSSIAN = "tanh-gaussian"


class AlgorithmConfig(FrozenModel):
    """The settings of one method for one kind of actions; `name` tells it from all others."""

    name: str
    learns_reward: ClassVar[bool] = False
    """Whether a reward can be recovered from what is learnt."""
    needs_successors: ClassVar[bool] = True
    """Whether the expert's transitions must have their next observation."""

    @property
    def reads_rewards(self) -> bool:
        """Whether recorded rewards are learnt from: an oracle, no imitation."""
        return False

    @property
    def reads_supplementary(self) -> bool:
        """Whether supplementary transitions are read."""
        return False
