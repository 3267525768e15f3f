"""The one home of Gymnasium: environments by id, for their action spaces and for evaluation."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iq_offline.data.episodes import DatasetInfo
from iq_offline.data.observations import flattened
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions
from iq_offline.errors import EnvironmentMissing, NotYet, PackageMissing, RunError, nearest

if TYPE_CHECKING:
    import gymnasium

UNCHECKED = {"disable_env_checker": True}
"""Of `gymnasium.make`: no checks of an environment's own conduct at every step."""


@dataclass(frozen=True)
class RawEnvironment:
    """An environment without the wrappers that only check or count, and the count at which its clock runs out."""

    reset: Callable[..., tuple[Any, dict[str, Any]]]
    step: Callable[[Any], tuple[Any, Any, bool, bool, dict[str, Any]]]
    close: Callable[[], None]
    observation_size: int
    step_limit: int | None


def make_raw_environment(env_id: str, env_kwargs: dict[str, Any]) -> RawEnvironment:
    """As `make_environment`, for a caller that resets before it steps, and counts the steps itself."""
    return raw(make_environment(env_id, UNCHECKED | env_kwargs))


def make_filmed_environment(env_id: str, env_kwargs: dict[str, Any], folder: Path) -> RawEnvironment:
    """As `make_raw_environment`; its first episode is an .mp4 file in the new `folder` once it is closed.

    Raises EnvironmentMissing, RunError where the environment draws no pictures, and PackageMissing where nothing here
    can draw or encode them.
    """
    from gymnasium.error import DependencyNotInstalled
    from gymnasium.wrappers import RecordVideo

    _draw_without_a_screen()
    environment = make_environment(env_id, UNCHECKED | env_kwargs | {"render_mode": "rgb_array"})
    if "rgb_array" not in environment.metadata.get("render_modes", ()):
        raise RunError(f"environment {env_id} draws no pictures (rgb_array)", "leave --video out")
    _check_drawing(environment, env_id)
    try:
        return raw(RecordVideo(environment, str(folder), episode_trigger=lambda episode: episode == 0))
    except (DependencyNotInstalled, RuntimeError) as error:  # moviepy itself; the ffmpeg that it looks for
        problem = f"a video needs moviepy and ffmpeg: {error}"
        raise PackageMissing(problem, "pip install moviepy (it brings an ffmpeg), or leave --video out") from None


def raw(environment: "gymnasium.Env[Any, Any]") -> RawEnvironment:
    """Take off the time limit and the checkers that lie outermost; another wrapper stays, with all that is in it."""
    from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

    limits = []
    while type(environment) in {OrderEnforcing, PassiveEnvChecker, TimeLimit}:
        if isinstance(environment, TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env  # type: ignore[attr-defined]
    return RawEnvironment(
        environment.reset,
        environment.step,
        environment.close,
        len(flattened(environment.observation_space.sample())),
        min(limits, default=None),
    )


def make_environment(env_id: str, env_kwargs: dict[str, Any]) -> "gymnasium.Env[Any, Any]":
    """Gymnasium's environment. Raises EnvironmentMissing where it is unknown or needs a package."""
    import gymnasium
    from gymnasium.error import DependencyNotInstalled, Error

    _log_mujoco_warnings(gymnasium.registry.get(env_id))
    # What an environment's packages print as they are imported (pygame's greeting) is no part of a command's answer.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        # An older environment version is asked for on purpose: the one that made the data.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(out of date|deprecated|not in the possible render_modes).*")
        try:
            return gymnasium.make(env_id, **env_kwargs)
        except DependencyNotInstalled as error:
            raise EnvironmentMissing(f"environment {env_id} needs a package: {error}", _install_hint(env_id)) from None
        except ModuleNotFoundError as error:
            raise EnvironmentMissing(
                f"environment {env_id} needs the module {error.name}", _install_hint(env_id)
            ) from None
        except Error as error:
            raise EnvironmentMissing(
                f"Gymnasium {gymnasium.__version__} cannot make environment {env_id}: {error}",
                "install the package that registers it, or name another with --env-id; "
                f"nearest installed: {nearest(env_id, gymnasium.registry)}",
            ) from None
        except TypeError as error:
            raise EnvironmentMissing(
                f"environment {env_id} does not take the arguments {env_kwargs}: {error}",
                "mend the dataset's env_kwargs, or name another environment with --env-id",
            ) from None


def declared_action_space(info: DatasetInfo) -> ActionSpace | None:
    """The action space that a dataset declares, else that of its environment; None where neither is known."""
    if info.action_space or not info.env_id:
        return info.action_space
    return environment_action_space(info.env_id, info.env_kwargs)


def step_limit(env_id: str, env_kwargs: dict[str, Any]) -> int | None:
    """The number of steps after which the environment's clock runs out; None where it has none or is not known here."""
    import gymnasium

    if "max_episode_steps" in env_kwargs:
        return int(env_kwargs["max_episode_steps"])
    spec = gymnasium.registry.get(env_id)
    return spec.max_episode_steps if spec else None


def environment_action_space(env_id: str, env_kwargs: dict[str, Any]) -> ActionSpace | None:
    """The environment's action space, or None where it is not installed here."""
    try:
        environment = make_environment(env_id, env_kwargs)
    except EnvironmentMissing:
        return None
    try:
        return action_space_from_gymnasium(environment.action_space, "environment")
    finally:
        environment.close()  # type: ignore[no-untyped-call]


def action_space_from_gymnasium(space: "gymnasium.Space[Any]", source: str) -> ActionSpace | None:
    """A Discrete or bounded one-dimensional Box as plain numbers; None for an unbounded Box.

    Raises NotYet for any other space.
    """
    import numpy as np
    from gymnasium.spaces import Box, Discrete

    if isinstance(space, Discrete) and space.start == 0:
        return DiscreteActions(int(space.n))
    if isinstance(space, Box) and len(space.shape) == 1:
        largest = np.finfo(np.float32).max / 2  # a wider range is beyond 32-bit floats: no bound that anyone meant
        if not (np.abs(space.low) < largest).all() or not (np.abs(space.high) < largest).all():
            return None
        return ContinuousActions(tuple(map(float, space.low)), tuple(map(float, space.high)), source)
    raise NotYet(f"action space {space} is not supported", "use a Discrete space from 0, or a Box of one dimension")


def environment_spec_json(env_id: str, env_kwargs: dict[str, Any]) -> str | None:
    """Gymnasium's description of the environment as JSON, or None where it is not registered here."""
    import copy

    import gymnasium

    if env_id not in gymnasium.registry:
        return None
    spec = copy.deepcopy(gymnasium.registry[env_id])
    spec.kwargs = {**spec.kwargs, **env_kwargs}
    return spec.to_json()


def _log_mujoco_warnings(spec: "gymnasium.envs.registration.EnvSpec | None") -> None:
    """MuJoCo's warnings go to the log: by default they are printed, and written to a file in the working folder."""
    if spec is None or "mujoco" not in str(spec.entry_point):
        return
    try:
        import mujoco
    except ModuleNotFoundError:
        return
    except (ImportError, AttributeError, RuntimeError) as error:  # the renderer that MUJOCO_GL names is not installed
        raise EnvironmentMissing(
            f"MuJoCo cannot be loaded with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error}",
            "install that renderer's library, name another (egl, osmesa, glfw), or unset MUJOCO_GL to draw nothing",
        ) from None
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").info)


def _draw_without_a_screen() -> None:
    """Where there is no screen, MuJoCo draws through EGL: by itself it tries GLFW alone, which needs one."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _check_drawing(environment: "gymnasium.Env[Any, Any]", env_id: str) -> None:
    """Draw once. A renderer that is missing shows itself in as many ways as there are renderers."""
    from gymnasium.error import Error

    failures: tuple[type[Exception], ...] = (Error, ImportError, RuntimeError, AttributeError, OSError)
    if "mujoco" in sys.modules:
        import mujoco

        failures = (*failures, mujoco.FatalError)
    environment.reset()
    try:
        environment.render()
    except failures as error:
        raise PackageMissing(
            f"environment {env_id} cannot be drawn here: {error}",
            "install what draws it; MuJoCo without a screen needs EGL or OSMesa and MUJOCO_GL=egl or MUJOCO_GL=osmesa; "
            "or leave --video out",
        ) from None


def _install_hint(env_id: str) -> str:
    return f"install what {env_id} needs (pip install 'gymnasium[all]' covers Gymnasium's own environments)"
