"""Simulation: paired seeds, lock-step equal to one at a time to the bit, and the environment of the data."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from threadpoolctl import threadpool_limits

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Standardiser
from iq_offline.algorithms.scaling import fit_standardiser
from iq_offline.config.base import ActionHead
from iq_offline.data.environments import make_environment, make_raw_environment, raw
from iq_offline.errors import EnvironmentMissing, RunError
from iq_offline.evaluation import simulation
from iq_offline.evaluation.actor import aligned, batch_actor
from iq_offline.evaluation.simulation import FIRST_SEED, LOCK_STEP, SimulatedEpisode, lock_step, simulate


def upright_policy(observation_size: int = 4) -> DiscretePolicy:
    """Pushes to the side that a CartPole's pole falls to."""
    policy = DiscretePolicy(Standardiser(torch.zeros(observation_size), torch.ones(observation_size)), 2, (), "tanh")
    with torch.no_grad():
        policy.network[0].weight.zero_()
        policy.network[0].bias.zero_()
        policy.network[0].weight[1, 2:] = torch.tensor([1.0, 1.0])
    return policy


def test_lock_step_equals_one_at_a_time():
    """Lock step gives what one environment at a time gives."""
    policy, episodes = upright_policy(), list(simulate("CartPole-v1", {}, upright_policy(), 13))
    environment = gymnasium.make("CartPole-v1")
    for episode in episodes:
        observation, _ = environment.reset(seed=FIRST_SEED + episode.episode)
        total, ended = 0.0, False
        while not ended:
            action = policy.act(torch.from_numpy(observation)[None])[0].item()
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, ended = total + float(reward), terminated or truncated
        assert (episode.episode_return, episode.length) == (total, int(total))
    assert [episode.seed for episode in episodes] == [FIRST_SEED + i for i in range(13)]


def test_more_episodes_do_not_change_the_first_ones():
    few, many = (
        list(simulate("CartPole-v1", {}, upright_policy(), 3)),
        simulate("CartPole-v1", {}, upright_policy(), 12),
    )
    assert list(many)[:3] == few


def test_the_environments_arguments_are_honoured():
    continuous = ContinuousPolicy(
        Standardiser(torch.zeros(111), torch.ones(111)), ActionScale.of_bounds([-1] * 8, [1] * 8), (), "tanh"
    )
    (episode,) = simulate("Ant-v4", {"use_contact_forces": True, "max_episode_steps": 5}, continuous, 1)
    assert episode.length == 5
    with pytest.raises(RunError, match=r"observations of 27 numbers, but the policy was trained on 111"):
        list(simulate("Ant-v4", {}, continuous, 1))


def test_an_environment_that_is_not_there_is_named():
    with pytest.raises(EnvironmentMissing, match="NoSuchTask-v7"):
        list(simulate("NoSuchTask-v7", {}, upright_policy(), 1))


def lively_policy(observation_size: int, actions: int, hidden=(256, 256)) -> ContinuousPolicy:
    """Random weights of a real policy's size, the last ones enlarged so that the body moves."""
    torch.manual_seed(0)
    policy = ContinuousPolicy(
        Standardiser(torch.zeros(observation_size), torch.ones(observation_size)),
        ActionScale.of_bounds([-1.0] * actions, [1.0] * actions),
        hidden,
        "relu",
        head=ActionHead.TANH_GAUSSIAN,
    )
    with torch.no_grad():
        policy.network[-1].weight.mul_(8)
    return policy.requires_grad_(False)


TASKS = {
    "HalfCheetah-v5": ({"max_episode_steps": 40}, 17, 6),
    "Hopper-v5": ({}, 11, 3),
    "Ant-v5": ({"max_episode_steps": 20}, 105, 8),
}


def one_after_another(env_id, env_kwargs, policy, episodes) -> list[SimulatedEpisode]:
    """Gymnasium's whole environment, a new one for each episode, alone in a batch whose other rows are empty."""
    act, found = batch_actor(policy, LOCK_STEP), []
    for number in range(episodes):
        environment = make_environment(env_id, env_kwargs)
        batch, row = aligned(LOCK_STEP, len(policy.observation_mean)), number % LOCK_STEP
        batch[row], _ = environment.reset(seed=FIRST_SEED + number)
        total, length, ended = 0.0, 0, False
        while not ended:
            with threadpool_limits(limits=1, user_api="blas"):  # several round otherwise where they share out the rows
                actions = act(batch)
            batch[row], reward, terminated, truncated, _ = environment.step(actions[row])
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        environment.close()
        found.append(SimulatedEpisode(number, FIRST_SEED + number, length, total))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Box.*precision lowered.*")
@pytest.mark.parametrize("env_id", TASKS)
def test_returns_equal_whole_environments(env_id):
    """Returns are those of one whole environment after another to the bit."""
    env_kwargs, observation_size, actions = TASKS[env_id]
    policy, episodes = lively_policy(observation_size, actions), LOCK_STEP + 3
    expected = one_after_another(env_id, env_kwargs, policy, episodes)
    assert len({episode.episode_return for episode in expected}) == episodes
    for at_once in (1, 5, LOCK_STEP):
        assert list(simulate(env_id, env_kwargs, policy, episodes, at_once=at_once)) == expected


def test_action_is_independent_of_other_rows():
    """A rows action does not depend on the other rows."""
    rng, policy = np.random.default_rng(0), lively_policy(17, 6)
    act, batch = batch_actor(policy, LOCK_STEP), aligned(LOCK_STEP, 17)
    batch[:] = rng.normal(size=batch.shape)
    together = act(batch)
    for row in range(LOCK_STEP):
        alone = aligned(LOCK_STEP, 17)
        alone[row] = batch[row]
        np.testing.assert_array_equal(act(alone)[row], together[row])


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("head", list(ActionHead))
def test_the_batched_actor_acts_as_the_policy_does(activation, head):
    torch.manual_seed(1)
    standardiser = Standardiser(torch.randn(5), torch.rand(5) + 0.01)
    scale = ActionScale.of_bounds([-2.0, 0.0, -1.0], [3.0, 1.0, 1.0])
    policy = ContinuousPolicy(standardiser, scale, (16, 8), activation, head=head, learnt_std=True).requires_grad_(
        False
    )
    observations = aligned(LOCK_STEP, 5)
    observations[:] = np.random.default_rng(0).normal(size=observations.shape, scale=3)
    actions = batch_actor(policy, LOCK_STEP)(observations)
    expected = policy.act(torch.from_numpy(observations)).numpy()
    np.testing.assert_allclose(actions, expected, atol=1e-5)
    assert (actions.shape, actions.dtype) == ((LOCK_STEP, 3), np.float32)


@pytest.mark.parametrize("norm", [False, True])
def test_the_batched_actor_chooses_the_policys_discrete_actions(norm):
    torch.manual_seed(1)
    policy = DiscretePolicy(Standardiser(torch.zeros(5), torch.ones(5)), 4, (16,), "relu", norm=norm)
    observations = aligned(LOCK_STEP, 5)
    observations[:] = np.random.default_rng(0).normal(size=observations.shape)
    actions = batch_actor(policy, LOCK_STEP)(observations)
    np.testing.assert_array_equal(actions, policy.act(torch.from_numpy(observations)).numpy())
    assert len(set(actions)) > 1


class Remembering(gymnasium.Env):
    """Keeps the actions that it is given, as they were given, and ends after three."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.given = []
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.given.append(action)
        return np.full(2, len(self.given), np.float32), 1.0, len(self.given) == 3, False, {}


def test_kept_action_is_not_overwritten():
    """An action that an environment keeps is not overwritten."""
    environment = Remembering()
    assert [episode.length for episode in lock_step([raw(environment)], lively_policy(2, 1), 1, at_once=1)] == [3]
    assert len({float(action[0]) for action in environment.given}) == 3


def test_raw_environment_keeps_the_clock_only():
    """The raw environment has no checks and keeps the clock."""
    environment = make_raw_environment("CartPole-v1", {"max_episode_steps": 7})
    assert type(environment.step.__self__).__name__ == "CartPoleEnv"
    assert environment.step_limit == 7
    assert make_raw_environment("CartPole-v1", {}).step_limit == 500
    bare = gymnasium.make("CartPole-v1").unwrapped
    assert raw(gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeLimit(bare, 9), 11)).step_limit == 9


def test_effective_wrapper_stays_around_the_clock():
    """A wrapper that does something stays with the clock inside it."""
    repeated = raw(CartPoleInParts())
    assert isinstance(repeated.step.__self__, CartPoleInParts)
    assert (repeated.step_limit, repeated.observation_size) == (None, 4)


def test_steps_are_told_and_every_environment_is_closed(monkeypatch):
    closed, told = [], []

    def make(*_):
        environment = gymnasium.make("CartPole-v1")
        environment.unwrapped.close = lambda: closed.append(environment)
        return raw(environment)

    monkeypatch.setattr(simulation, "make_raw_environment", make)
    steps = sum(episode.length for episode in simulate("any", {}, upright_policy(), 30, on_steps=told.append))
    assert len(closed) == LOCK_STEP
    assert told == sorted(set(told))
    assert simulation.STEPS_BETWEEN_REPORTS <= told[0] <= told[-1] <= steps


class CartPoleInParts(gymnasium.ObservationWrapper):
    """CartPole whose observation is a dictionary, its parts named so that their order is another."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        box = gymnasium.spaces.Box(-10, 10, (2,))
        self.observation_space = gymnasium.spaces.Dict({"pole": box, "cart": box})

    def observation(self, observation):
        return {"pole": observation[2:], "cart": observation[:2]}


def test_dictionary_observation_is_joined_by_name(monkeypatch):
    """A dictionary observation is joined in the order of its names."""
    monkeypatch.setattr(simulation, "make_raw_environment", lambda *_: raw(CartPoleInParts()))
    parts = list(simulate("parts", {}, upright_policy(), 3))
    monkeypatch.undo()
    assert parts == list(simulate("CartPole-v1", {}, upright_policy(), 3))


class CartPoleInPictures(gymnasium.ObservationWrapper):
    """CartPole with a small picture whose brightness tells the pole's angle, beside its numbers."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1", max_episode_steps=25))
        picture = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"camera": picture, "state": gymnasium.spaces.Box(-9, 9, (4,))})

    def observation(self, observation):
        bright = np.uint8(np.clip(128 + 500 * observation[2], 0, 255))
        return {"camera": np.full((8, 8, 3), bright), "state": observation}


def test_pictures_are_evaluated_in_lock_step_as_alone(monkeypatch):
    monkeypatch.setattr(simulation, "make_raw_environment", lambda *_: raw(CartPoleInPictures()))
    torch.manual_seed(0)
    layout = ObservationLayout(4, ((8, 8, 3),))
    policy = DiscretePolicy(fit_standardiser(torch.randn(9, 4), layout), 2, (8,), "relu", layout=layout).requires_grad_(
        False
    )
    together, alone = (list(simulate("pictures", {}, policy, 3, at_once=at_once)) for at_once in (LOCK_STEP, 1))
    assert together == alone
    assert all(5 < episode.length <= 25 for episode in alone)


def test_environments_output_stays_out_of_answer(capsys, monkeypatch):
    """What an environment prints as it is made stays out of the answer."""

    class Talkative(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self) -> None:
            print("hello from the community")

    monkeypatch.setitem(gymnasium.registry, "Talkative-v0", EnvSpec("Talkative-v0", entry_point=Talkative))
    make_environment("Talkative-v0", {"disable_env_checker": True}).close()
    said = capsys.readouterr()
    assert said.out == ""
    assert "hello from the community" in said.err


def test_an_environment_that_takes_other_actions_is_refused():
    one = ContinuousPolicy(Standardiser(torch.zeros(4), torch.ones(4)), ActionScale.of_bounds([-1], [1]), (), "tanh")
    with pytest.raises(RunError, match="CartPole-v1 takes one of 2 actions, but the policy gives 1 real numbers"):
        list(simulate("CartPole-v1", {}, one, 1))
    of_three = DiscretePolicy(Standardiser(torch.zeros(3), torch.ones(3)), 3, (), "tanh")
    with pytest.raises(RunError, match="Pendulum-v1 takes 1 real numbers as action, but the policy gives one of 3"):
        list(simulate("Pendulum-v1", {}, of_three, 1))
