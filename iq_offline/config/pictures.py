"""Which layers encode pictures."""

from enum import StrEnum


class PictureEncoder(StrEnum):
    """Layers that encode pictures: the three convolutions of [DQN15], or the residual blocks of [IMPALA18]."""

    NATURE = "nature"
    IMPALA = "impala"
