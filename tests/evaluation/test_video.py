"""The video of the first episode, and what is said where it cannot be made."""

import io
import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.error import DependencyNotInstalled
from PIL import Image

from iq_offline.algorithms.networks import DiscretePolicy, Standardiser
from iq_offline.errors import ConfigError, PackageMissing, RunError
from iq_offline.evaluation.simulation import FIRST_SEED, film, film_strip, simulate, strip_of


class DrawnCartPole(CartPoleEnv):
    """CartPole that needs no package to draw itself: the cart's place as a white column."""

    def render(self):
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[:, int(np.clip(32 + 10 * self.state[0], 0, 63))] = 255
        return picture


class UndrawnCartPole(CartPoleEnv):
    """CartPole whose renderer is not installed."""

    def render(self):
        raise DependencyNotInstalled("artist is not installed")


class BlindCartPole(CartPoleEnv):
    """CartPole that draws no pictures."""

    metadata = {"render_modes": []}  # noqa: RUF012


@pytest.fixture(autouse=True)
def environments(monkeypatch):
    """Three kinds of CartPole by id."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    for kind in (DrawnCartPole, UndrawnCartPole, BlindCartPole):
        gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=40)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """A moviepy of our own that writes the number of frames, and the numbers that it wrote."""
    written: list[int] = []

    class ImageSequenceClip:
        def __init__(self, frames, fps):
            self.frames, self.fps = frames, fps

        def write_videofile(self, path, logger):
            assert logger is None
            assert self.fps == 50
            written.append(len(self.frames))
            with open(path, "w") as file:  # noqa: PTH123
                file.write(f"{len(self.frames)} frames")

    module = ModuleType("moviepy.video.io.ImageSequenceClip")
    module.ImageSequenceClip = ImageSequenceClip
    for name in ("moviepy", "moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return written


@pytest.fixture
def policy() -> DiscretePolicy:
    """Random actions of a network."""
    torch.manual_seed(0)
    return DiscretePolicy(Standardiser(torch.zeros(4), torch.ones(4)), 2, (8,), "tanh").requires_grad_(False)


def test_video_shows_first_evaluated_episode(encoded, policy, tmp_path):
    """The video shows the first episode of the evaluation."""
    told = []
    episode = film("DrawnCartPole-v0", {}, policy, tmp_path / "new" / "film.mp4", told.append)
    first, *_ = simulate("DrawnCartPole-v0", {}, policy, 3)
    assert episode == first
    assert encoded == [episode.length + 1]
    assert (tmp_path / "new" / "film.mp4").read_text() == f"{episode.length + 1} frames"
    assert sorted(item.name for item in (tmp_path / "new").iterdir()) == ["film.jpg", "film.mp4"]
    assert strip_of(tmp_path / "new" / "film.mp4").read_bytes() == film_strip(encoded_pictures(policy))


def encoded_pictures(policy) -> list[np.ndarray]:
    """Pictures of the same episode, drawn after each step."""
    cartpole = DrawnCartPole()
    observation, _ = cartpole.reset(seed=FIRST_SEED)
    pictures, ended = [cartpole.render()], False
    while not ended and len(pictures) <= 40:
        action = int(policy.act(torch.from_numpy(observation)[None])[0])
        observation, _, ended, *_ = cartpole.step(action)
        pictures.append(cartpole.render())
    return pictures


@pytest.mark.parametrize(("count", "shown"), [(1, [0]), (3, [0, 1, 2]), (99, [0, 14, 28, 42, 56, 70, 84, 98])])
def test_strip_spreads_pictures_evenly(count, shown):
    """The row starts with the first picture and ends with the last, each made at most 160 pixels high and wide."""
    strip = decoded(film_strip([np.full((200, 400, 3), place, np.uint8) for place in range(count)]))
    assert strip.shape == (80, 164 * len(shown) - 4, 3)
    assert strip[40, 80::164, 0].tolist() == shown


def test_strip_of_noise_stays_small():
    """Nothing takes more bytes than noise; the strip keeps below 300 kB when it is inlined."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 160, 160, 3), np.uint8)
    assert len(film_strip(list(noise))) * 4 / 3 < 300_000


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_another_file_than_mp4_is_refused(policy, tmp_path):
    with pytest.raises(ConfigError, match=r"film.gif is no .mp4 file") as refused:
        film("DrawnCartPole-v0", {}, policy, tmp_path / "film.gif", lambda _: None)
    assert "film.mp4" in refused.value.remedy


def test_missing_moviepy_is_named(monkeypatch, policy, tmp_path):
    """Without moviepy it is named and nothing is written."""
    monkeypatch.setitem(sys.modules, "moviepy", None)
    with pytest.raises(PackageMissing, match="a video needs moviepy and ffmpeg") as refused:
        film("DrawnCartPole-v0", {}, policy, tmp_path / "film.mp4", lambda _: None)
    assert "pip install moviepy" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_an_environment_whose_renderer_is_missing_is_named(encoded, policy, tmp_path):
    with pytest.raises(PackageMissing, match="UndrawnCartPole-v0 cannot be drawn here: artist is not installed"):
        film("UndrawnCartPole-v0", {}, policy, tmp_path / "film.mp4", lambda _: None)
    assert encoded == []


def test_an_environment_that_draws_no_pictures_is_named(encoded, policy, tmp_path):
    with pytest.raises(RunError, match="BlindCartPole-v0 draws no pictures"):
        film("BlindCartPole-v0", {}, policy, tmp_path / "film.mp4", lambda _: None)
    assert encoded == []


def test_an_encoder_that_fails_is_told(encoded, policy, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("MoviePy error: unknown encoder")

    clip = sys.modules["moviepy.video.io.ImageSequenceClip"].ImageSequenceClip
    monkeypatch.setattr(clip, "write_videofile", fail)
    monkeypatch.setattr(gymnasium.wrappers.RecordVideo, "__del__", lambda _: None)
    with pytest.raises(RunError, match="unknown encoder"):
        film("DrawnCartPole-v0", {}, policy, tmp_path / "film.mp4", lambda _: None)
    assert not (tmp_path / "film.mp4").exists()
    assert encoded == []


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_real_encoder_writes_an_mp4(policy, tmp_path):
    pytest.importorskip("moviepy")
    film("DrawnCartPole-v0", {}, policy, tmp_path / "film.mp4", lambda _: None)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
