"""One value from several critics."""

from torch import Tensor

from iq_offline.config.conservative import Pessimism


def lower_confidence(q: Tensor, deviations: float) -> Tensor:
    """Mean over members less `deviations` standard deviations. Shapes: (N, B) -> (B,); of one member, itself."""
    if len(q) == 1:
        return q[0]
    return q.mean(dim=0) - deviations * q.std(dim=0, correction=0)


def pessimistic(q: Tensor, how: Pessimism, deviations: float) -> Tensor:
    """The ensemble's value: mean, minimum, or lower confidence bound. Shapes: (N, B) -> (B,); of one member, itself."""
    if len(q) == 1:
        return q[0]
    if how is Pessimism.MINIMUM:
        return q.amin(dim=0)
    return lower_confidence(q, 0.0 if how is Pessimism.MEAN else deviations)
