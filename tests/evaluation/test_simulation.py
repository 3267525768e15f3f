"""Simulation: paired seeds, lock-step equal to one at a time, and the environment of the data."""

import gymnasium
import pytest
import torch

from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Standardiser
from iq_offline.errors import EnvironmentMissing, RunError
from iq_offline.evaluation import simulation
from iq_offline.evaluation.simulation import FIRST_SEED, simulate


def upright_policy(observation_size: int = 4) -> DiscretePolicy:
    """Pushes to the side that a CartPole's pole falls to."""
    policy = DiscretePolicy(Standardiser(torch.zeros(observation_size), torch.ones(observation_size)), 2, (), "tanh")
    with torch.no_grad():
        policy.network[0].weight.zero_()
        policy.network[0].bias.zero_()
        policy.network[0].weight[1, 2:] = torch.tensor([1.0, 1.0])
    return policy


def test_lock_step_gives_what_one_environment_at_a_time_gives():
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


class CartPoleInParts(gymnasium.ObservationWrapper):
    """CartPole whose observation is a dictionary, its parts named so that their order is another."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        box = gymnasium.spaces.Box(-10, 10, (2,))
        self.observation_space = gymnasium.spaces.Dict({"pole": box, "cart": box})

    def observation(self, observation):
        return {"pole": observation[2:], "cart": observation[:2]}


def test_a_dictionary_observation_is_joined_in_the_order_of_its_names(monkeypatch):
    monkeypatch.setattr(simulation, "make_environment", lambda *_: CartPoleInParts())
    parts = list(simulate("parts", {}, upright_policy(), 3))
    monkeypatch.undo()
    assert parts == list(simulate("CartPole-v1", {}, upright_policy(), 3))
