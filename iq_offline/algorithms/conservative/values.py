"""Regularisers of the Q-function by the actions and the observations that the data lack."""

import math

import torch
from torch import Tensor


def cql_gap(q_all: Tensor, q_data: Tensor, temperature: float) -> Tensor:
    """E[temperature * logsumexp(Q(s, .) / temperature) - Q(s, a)] over discrete actions, exactly.

    Shapes: q_all (B, actions), q_data (B,) -> (). Source: [CQL20] eq. 4, CQL(H). It lowers Q of whatever action is
    greatest and raises that of the recorded one; zero only where the recorded action has all the soft mass.
    """
    return (temperature * torch.logsumexp(q_all / temperature, dim=-1) - q_data).mean()


def sampled_cql_gap(
    q_uniform: Tensor, q_policy: Tensor, policy_log_prob: Tensor, q_data: Tensor, temperature: float, action_size: int
) -> Tensor:
    """The same gap with the integral over actions in [-1, 1]^A estimated by importance sampling.

    log of the integral of exp(Q / t) from n uniform actions (log density -A log 2) and n of the policy (its log
    density; infinite where the draw left the box), half each. Shapes: q_uniform, q_policy, policy_log_prob (n, B);
    q_data (B,) -> (). Source: [CQL20] appendix F. The estimate is of a logarithm, and so too low for few samples.
    """
    if q_uniform.shape != q_policy.shape or q_policy.shape != policy_log_prob.shape:
        raise ValueError(
            f"samples have shapes {tuple(q_uniform.shape)}, {tuple(q_policy.shape)}, {tuple(policy_log_prob.shape)}"
        )
    uniform_log_density = -action_size * math.log(2)
    terms = torch.cat([q_uniform / temperature - uniform_log_density, q_policy / temperature - policy_log_prob])
    log_integral = torch.logsumexp(terms, dim=0) - math.log(len(terms))
    return (temperature * log_integral - q_data).mean()


def value_suppression(supplementary_q: Tensor, expert_q: Tensor) -> Tensor:
    """E_supplementary[Q(s, policy)] - E_expert[Q(s, a)]: observations that only worse data visit get lower values.

    Shapes: (B,), (B',) -> (). Source: [RECOIL24], the value term of the dual over the mixture's complement.
    """
    return supplementary_q.mean() - expert_q.mean()


def expectile_loss(v: Tensor, q: Tensor, expectile: float) -> Tensor:
    """E[|expectile - 1(Q < V)| (Q - V)^2]: V moves to that expectile of Q over recorded actions.

    At 1/2 it is half the squared error; towards 1, V tends to the greatest recorded Q. q carries no gradient.
    Shapes: (B,), (B,) -> (). Source: [IQL22] eq. 5.
    """
    difference = q - v
    weights = torch.where(difference < 0, 1 - expectile, expectile)
    return (weights * difference.square()).mean()


def gumbel_loss(v: Tensor, q: Tensor, temperature: float, largest: float) -> Tensor:
    """E[exp(z) - z - 1], z = (Q - V) / temperature: V is the soft maximum of Q over the data's own actions.

    Beyond z = `largest` the exponential goes on along its tangent, so that gradients stay finite and right in sign.
    q carries no gradient. Shapes: (B,), (B,) -> (). Source: [XQL23] eq. 10.
    """
    z = (q - v) / temperature
    inside = z.clamp(max=largest)
    return (torch.exp(inside) * (1 + z - inside) - z - 1).mean()
