"""recovery-bc: which supplementary transitions lead back to demonstrated states, against a slow definition."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iq_offline.baselines.recovery import fit_recovery, leads_back, recovery_weights
from iq_offline.baselines.sources import PeerData, Recorded, recorded
from iq_offline.config.baselines import ContinuousRecoveryBCConfig
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import fit_clone
from iq_offline.training.tensor_files import tensors_sha256

CONFIG = ContinuousRecoveryBCConfig(cloning=ContinuousBCConfig(updates=20, hidden_sizes=(16,)))


def defined(next_similarities: NDArray[np.float64], lengths: list[int], discount: float) -> list[float]:
    """The definition, step by step and without a recursion."""
    found, start = [], 0
    for length in lengths:
        episode = next_similarities[start : start + length]
        for step in range(length):
            found.append(max(discount**later * value for later, value in enumerate(episode[step:])))
        start += length
    return found


def test_recursion_equals_definition():
    """Episodes do not see each other, and the best later step counts, discounted by the steps to it."""
    lengths, rng = [1, 7, 30, 2], np.random.default_rng(0)
    similarities = rng.random(sum(lengths)) ** 4
    ends = np.cumsum(lengths)
    slices = [slice(int(end) - length, int(end)) for end, length in zip(ends, lengths, strict=True)]
    assert leads_back(similarities, slices, 0.9) == pytest.approx(defined(similarities, lengths, 0.9))


def walk(*positions: float) -> Recorded:
    """One episode along a line, as (N, 1) observations."""
    line = np.array(positions, dtype=np.float32)[:, None]
    steps = len(line) - 1
    return Recorded(line[:-1], np.zeros((steps, 2), np.float32), line[1:], np.zeros(steps, np.int64))


def test_weight_needs_distance_then_return(peer_data: Callable[..., PeerData], monkeypatch: pytest.MonkeyPatch):
    """A stretch that comes back from afar counts, by how soon; staying at the demonstrations or going away does not."""
    demonstrated = walk(0, 1, 2, 3, 4)
    monkeypatch.setattr("iq_offline.baselines.recovery.recorded", lambda _: demonstrated)
    back = recovery_weights(CONFIG, peer_data(), walk(40, 30, 20, 2))
    assert back == pytest.approx([0.95**2, 0.95, 1.0])
    assert not recovery_weights(CONFIG, peer_data(), walk(2, 20, 30, 40)).any()
    assert not recovery_weights(CONFIG, peer_data(), walk(1, 2, 3, 2)).any()


def test_small_weights_are_left_out(peer_data: Callable[..., PeerData], monkeypatch: pytest.MonkeyPatch):
    """A way back of more steps than log(min_weight) / log(discount) begins too early."""
    demonstrated = walk(0, 1, 2, 3, 4)
    monkeypatch.setattr("iq_offline.baselines.recovery.recorded", lambda _: demonstrated)
    weights = recovery_weights(CONFIG, peer_data(), walk(*[40.0] * 60, 2))
    assert np.flatnonzero(weights)[0] == 60 - 1 - int(np.log(0.1) / np.log(0.95))


def test_nothing_leads_back_clones_demonstrations(peer_data: Callable[..., PeerData], monkeypatch: pytest.MonkeyPatch):
    """Without a way back the clone is that of the demonstrations alone, to the bit."""
    data, cpu = peer_data(), torch.device("cpu")
    zeros = np.zeros(len(recorded(data.supplementary_parts)))
    monkeypatch.setattr("iq_offline.baselines.recovery.recovery_weights", lambda *_: zeros)
    *_, found = fit_recovery(CONFIG, 0, data, cpu)
    expert = TransitionSampler(data.expert, data.split.rows, cpu)
    *_, alone = fit_clone(CONFIG.cloning, 0, expert, data.expert.action_space, cpu)
    assert found.metrics["kept_transitions"] == 0
    assert tensors_sha256(found.learner.tensors()) == tensors_sha256(alone.learner.tensors())


def test_single_whole_demonstration_has_a_scale(peer_data: Callable[..., PeerData], monkeypatch: pytest.MonkeyPatch):
    """Its next observations repeat its observations; distances between different steps are the scale."""
    monkeypatch.setattr("iq_offline.baselines.recovery.recorded", lambda _: walk(0, 1, 2, 3, 4))
    assert recovery_weights(CONFIG, peer_data(), walk(40, 30, 2.5)).all()


def test_tiny_bandwidth_finds_no_way_back(peer_data: Callable[..., PeerData]):
    """Only what repeats a demonstrated observation is similar to one then, and nothing does."""
    data = peer_data()
    narrow = CONFIG.model_copy(update={"bandwidth": 1e-9})
    assert not recovery_weights(narrow, data, recorded(data.supplementary_parts)).any()
