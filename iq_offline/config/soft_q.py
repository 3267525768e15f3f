"""Settings that the methods for discrete actions share."""

from pydantic import Field

from iq_offline.config.base import Activation, HiddenSizes
from iq_offline.config.q_learning import QLearningConfig


class SoftQConfig(QLearningConfig):
    """Of discrete actions: a soft Q-function, whose softmax is the policy."""

    learning_rate: float = Field(3e-4, gt=0)
    """Of Q, V and an actor, at the first update."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled (AdamW)."""
    temperature: float = Field(0.1, gt=0)
    """Weight of the policy's entropy in the soft value."""
    hidden_sizes: HiddenSizes = (256, 256)
    """Of V, of an in-sample value and of a Q beside an actor; a policy that starts from a prior has the prior's."""
    activation: Activation = Activation.TANH
    layer_norm: bool = False
    """Before each hidden activation of those same networks."""
