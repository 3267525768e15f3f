"""The one home of Gymnasium: environments by id, for their action spaces and for evaluation."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from iq_offline.data.episodes import DatasetInfo
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions
from iq_offline.errors import EnvironmentMissing, NotYet, nearest

if TYPE_CHECKING:
    import gymnasium


def make_environment(env_id: str, env_kwargs: dict[str, Any]) -> "gymnasium.Env[Any, Any]":
    """Gymnasium's environment. Raises EnvironmentMissing where it is unknown or needs a package."""
    import gymnasium
    from gymnasium.error import DependencyNotInstalled, Error

    _log_mujoco_warnings(gymnasium.registry.get(env_id))
    with warnings.catch_warnings():
        # An older environment version is asked for on purpose: the one that made the data.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(out of date|deprecated).*")
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
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
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
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").info)


def _install_hint(env_id: str) -> str:
    return f"install what {env_id} needs (pip install 'gymnasium[all]' covers Gymnasium's own environments)"
