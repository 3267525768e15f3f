"""A video of an evaluation's first episode, by Gymnasium's own wrapper."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iq_offline.algorithms.networks import Policy
from iq_offline.data.environments import make_filmed_environment
from iq_offline.data.files import whole_file
from iq_offline.errors import ConfigError, RunError
from iq_offline.evaluation.simulation import UNKNOWN_BOUND, EpisodeBound, SimulatedEpisode, lock_step

SUFFIX = ".mp4"


def film(
    env_id: str,
    env_kwargs: dict[str, Any],
    policy: Policy,
    destination: Path,
    on_steps: Callable[[int], None],
    bound: EpisodeBound = UNKNOWN_BOUND,
) -> SimulatedEpisode:
    """Write the first episode of `simulate` as a video: the same seed and actions, hence the same episode.

    Raises ConfigError for another file than .mp4, what `make_filmed_environment` raises, and RunError where the
    encoder fails.
    """
    check_video_name(destination)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "video"
        environment = make_filmed_environment(env_id, env_kwargs, folder)
        try:
            (episode,) = lock_step([environment], policy, 1, at_once=1, on_steps=on_steps, bound=bound)
        finally:
            _close(environment.close)
        with whole_file(destination) as whole:
            (recorded,) = folder.glob(f"*{SUFFIX}")
            whole.write_bytes(recorded.read_bytes())
    return episode


def check_video_name(destination: Path) -> None:
    """Raises ConfigError for a file that does not end in .mp4."""
    if destination.suffix != SUFFIX:
        raise ConfigError(f"--video {destination} is no {SUFFIX} file", f"name it {destination.with_suffix(SUFFIX)}")


def _close(close: Callable[[], None]) -> None:
    """Closing encodes what was drawn."""
    try:
        close()
    except OSError as error:
        if error.errno is not None:  # a full disk or a missing permission, told as such elsewhere
            raise
        raise RunError(f"ffmpeg could not write the video: {error}", "mend that ffmpeg, or leave --video out") from None
