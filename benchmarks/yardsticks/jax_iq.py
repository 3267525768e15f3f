"""A straightforward JAX version of the same IQ-Learn update: many of them in one `lax.scan`. Needs jax and numpy.

Chi-squared IQ-Learn with the expert's value term; clipped Gaussian actor of fixed width, two ReLU critics, the lesser
of their slow targets as V(s'), Adam; the critics move first, the actor against the moved critics, then the targets.
jax_iq measures; jax_iq FROM TO makes updates from given weights, batches and noise, for `speed check`.
"""

import itertools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .synthetic import ACTION, BATCH, HIDDEN, OBSERVATION, continuous_episodes
from .worker import Measure, counted, serve

AT_ONCE = 50
"""Updates of one scan."""
GAMMA, CHI, TAU = 0.99, 0.5, 0.005
STD = 0.135
RATE, FIRST_DECAY, SECOND_DECAY, EPSILON = 3e-4, 0.9, 0.999, 1e-8

Tree = Any
"""Arrays in lists, tuples and dictionaries."""


class Adam(NamedTuple):
    """Moments of a tree's gradients."""

    first: Tree
    second: Tree
    count: Any


class State(NamedTuple):
    """All that an update changes."""

    actor: Tree
    critics: Tree
    targets: Tree
    actor_adam: Adam
    critic_adam: Adam


def forward(layers: Tree, inputs: jax.Array) -> jax.Array:
    """A multi-layer perceptron with ReLU between its layers, [(weights, biases), ...]."""
    *hidden, (last_weights, last_biases) = layers
    for weights, biases in hidden:
        inputs = jax.nn.relu(inputs @ weights + biases)
    return inputs @ last_weights + last_biases


def q_of(critic: Tree, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """Q(s, a), (B,)."""
    return forward(critic, jnp.concatenate([observations, actions], axis=1))[:, 0]


def act(actor: Tree, observations: jax.Array, noise: jax.Array) -> jax.Array:
    """Clipped actions of the Gaussian policy."""
    return jnp.clip(forward(actor, observations) + STD * noise, -1, 1)


def least_q(critics: Tree, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """The lesser of two critics."""
    first, second = critics
    return jnp.minimum(q_of(first, observations, actions), q_of(second, observations, actions))


def critic_loss(critics: Tree, batch: Tree, actions: jax.Array, discounted_next_v: jax.Array) -> jax.Array:
    """-E[phi(r)] + E[V(s) - gamma V(s')], mean over critics."""

    def of(critic: Tree) -> jax.Array:
        reward = q_of(critic, batch["observations"], batch["actions"]) - discounted_next_v
        v = q_of(critic, batch["observations"], actions)
        return (v - discounted_next_v).mean() - reward.mean() + (reward**2).mean() / (4 * CHI)

    return sum(of(critic) for critic in critics) / len(critics)


def actor_loss(actor: Tree, critics: Tree, observations: jax.Array, noise: jax.Array) -> jax.Array:
    """-E[Q(s, policy)]."""
    return -least_q(critics, observations, act(actor, observations, noise)).mean()


def update(state: State, batch: Tree, noise: jax.Array, next_noise: jax.Array) -> tuple[State, jax.Array]:
    """One update; `noise` (B, A) moves the action at s, both in V(s) and for the actor, `next_noise` that at s'."""
    observations, next_observations = batch["observations"], batch["next_observations"]
    next_v = least_q(state.targets, next_observations, act(state.actor, next_observations, next_noise))
    next_v = GAMMA * (1 - batch["terminations"]) * next_v
    actions = act(state.actor, observations, noise)
    loss, gradient = jax.value_and_grad(critic_loss)(state.critics, batch, actions, next_v)
    critics, critic_adam = adam(state.critics, gradient, state.critic_adam)
    gradient = jax.grad(actor_loss)(state.actor, critics, observations, noise)
    actor, actor_adam = adam(state.actor, gradient, state.actor_adam)
    targets = jax.tree.map(lambda slow, fast: slow + TAU * (fast - slow), state.targets, critics)
    return State(actor, critics, targets, actor_adam, critic_adam), loss


def adam(parameters: Tree, gradient: Tree, state: Adam) -> tuple[Tree, Adam]:
    """One step of Adam."""
    count = state.count + 1
    first = jax.tree.map(lambda m, g: FIRST_DECAY * m + (1 - FIRST_DECAY) * g, state.first, gradient)
    second = jax.tree.map(lambda v, g: SECOND_DECAY * v + (1 - SECOND_DECAY) * g * g, state.second, gradient)
    size, correction = RATE / (1 - FIRST_DECAY**count), 1 / (1 - SECOND_DECAY**count)
    moved = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v * correction) + EPSILON), parameters, first, second)
    return moved, Adam(first, second, count)


def state_of(actor: Tree, critics: Tree) -> State:
    """A state before the first update."""

    def rest(parameters: Tree) -> Adam:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return Adam(zeros, zeros, jnp.zeros((), dtype=actor[0][0].dtype))

    return State(actor, critics, critics, rest(actor), rest(critics))


def build() -> Measure:
    """Updates on the synthetic data, which lie in memory."""
    rng = np.random.default_rng(0)

    def layers(*sizes: int) -> Tree:
        shapes = itertools.pairwise(sizes)
        return [(jnp.asarray(rng.normal(0, m**-0.5, (m, n)), jnp.float32), jnp.zeros(n)) for m, n in shapes]

    critics = [layers(OBSERVATION + ACTION, *HIDDEN, 1) for _ in range(2)]
    state = state_of(layers(OBSERVATION, *HIDDEN, ACTION), critics)
    arrays = {name: jnp.asarray(array) for name, array in continuous_episodes().flat().items() if name != "rewards"}
    count = len(arrays["actions"])

    def step(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        rows_key, noise_key, next_key = jax.random.split(key, 3)
        rows = jax.random.randint(rows_key, (BATCH,), 0, count)
        batch = {name: array[rows] for name, array in arrays.items()}
        noise = jax.random.normal(noise_key, (BATCH, ACTION))
        return update(state, batch, noise, jax.random.normal(next_key, (BATCH, ACTION)))

    scan = jax.jit(lambda state, key: jax.lax.scan(step, state, jax.random.split(key, AT_ONCE)), donate_argnums=0)
    key = jax.random.key(0)
    # Donation needs each buffer once, and critics start as their own targets.
    state = jax.tree.map(jnp.copy, state)

    def updates(_: int) -> float:
        nonlocal state, key
        key, used = jax.random.split(key)
        state, losses = scan(state, used)
        return float(losses[-1])

    return counted(updates, AT_ONCE)


def follow(source: str, target: str) -> None:
    """Updates from the weights, batches and noise in one file; losses and weights after them in another."""
    jax.config.update("jax_enable_x64", True)
    given = np.load(source)

    def layers(prefix: str) -> Tree:
        found = [name for name in given.files if name.startswith(f"{prefix}.weights.")]
        return [(given[f"{prefix}.weights.{i}"], given[f"{prefix}.biases.{i}"]) for i in range(len(found))]

    state = state_of(layers("actor"), [layers("critic.0"), layers("critic.1")])
    losses = []
    names = ("observations", "actions", "next_observations", "terminations")
    for k in range(len(given["noise"])):
        batch = {name: given[name][k] for name in names}
        state, loss = jax.jit(update)(state, batch, given["noise"][k], given["next_noise"][k])
        losses.append(loss)
    parts = {"actor": state.actor, "critic.0": state.critics[0], "critic.1": state.critics[1]}
    parts |= {"target.0": state.targets[0], "target.1": state.targets[1]}
    after = {
        f"{part}.{kind}.{i}": np.asarray(array)
        for part, found in parts.items()
        for i, layer in enumerate(found)
        for kind, array in zip(("weights", "biases"), layer, strict=True)
    }
    np.savez(target, losses=np.asarray(losses), **after)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        follow(*sys.argv[1:])
    else:
        serve(build)
