"""The one home of Gymnasium: environments by id, for their action spaces and for evaluation."""

import contextlib
import importlib
import importlib.metadata
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.categories import DeclaredSpace
from iq_offline.data.episodes import DatasetInfo
from iq_offline.data.observations import flattened, is_picture, leaves
from iq_offline.data.spaces import ActionSpace, DiscreteActions, declared_box
from iq_offline.errors import EnvironmentMissing, NotYet, PackageMissing, RunError, did_you_mean

if TYPE_CHECKING:
    import gymnasium

T = TypeVar("T")
UNCHECKED = {"disable_env_checker": True}
"""Of `gymnasium.make`: no checks of an environment's own conduct at every step."""
STEP_LIMIT = "max_episode_steps"
WRAPPERS = "additional_wrappers"
"""Environment arguments that are not the constructor's: the clock, and the wrappers that data were recorded through."""
TUPLES = frozenset({"screen_size", "shape"})
"""Arguments of wrappers that Gymnasium asks for as tuples, where JSON has lists."""
APPLIED = frozenset(
    {
        *("AtariPreprocessing", "ClipAction", "ClipReward", "DelayObservation", "DtypeObservation"),
        *("FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation"),
        *("MaxAndSkipObservation", "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation"),
        *("StickyAction", "TimeAwareObservation"),
    }
)
"""Gymnasium's wrappers that JSON describes wholly. Those that normalise keep statistics that it does not tell."""
APPLIED_OF_MINIGRID = frozenset(
    {
        *("DictObservationSpaceWrapper", "DirectionObsWrapper", "FlatObsWrapper", "FullyObsWrapper", "ImgObsWrapper"),
        *("OneHotPartialObsWrapper", "RGBImgObsWrapper", "RGBImgPartialObsWrapper", "SymbolicObsWrapper"),
        "ViewSizeWrapper",
    }
)
"""MiniGrid's wrappers that only transform observations. Those that change rewards, ends or grids are another task."""
WATCHING = frozenset(
    {
        *("HumanRendering", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo"),
        "RenderCollection",
    }
)
"""Gymnasium's wrappers that change nothing of the task: left out."""
WATCHERS = frozenset({"DataCollector", "Monitor", "RecordConstructorArgs", "ResultsWriter", "VecMonitor"}) | WATCHING
"""Names of wrappers, of any package, that only watch: left out with a note. Their code is never loaded."""
PLUG_INS = {
    "ale_py": re.compile(r"ALE/|\w+(NoFrameskip|Deterministic)-v\d+$"),
    "gymnasium_robotics": re.compile(r"Adroit|AntMaze|Fetch|FrankaKitchen|HandManipulate|HandReach|PointMaze"),
    "minigrid": re.compile(r"BabyAI|MiniGrid"),
}
"""Packages that register environments as they are imported, and how the ids of these begin."""
INSTALL = "pip install 'iq-offline[environments]'"
FITTING_VERSIONS = f"{INSTALL} brings versions that work together"
BROKEN = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What an environment's constructor raises for arguments that it does not like."""
OTHER_ARGUMENTS = "mend the dataset's env_kwargs, or give others with --env-kwargs"


@dataclass(frozen=True)
class RawEnvironment:
    """An environment without the wrappers that only check or count, and the count at which its clock runs out."""

    reset: Callable[..., tuple[Any, dict[str, Any]]]
    step: Callable[[Any], tuple[Any, Any, bool, bool, dict[str, Any]]]
    close: Callable[[], None]
    observation_size: int
    step_limit: int | None
    action_space: "gymnasium.Space[Any]"
    categories: tuple[int, ...] = ()
    """How many categories each number of an observation tells apart, 0 for a real number; empty if all are real."""


def make_raw_environment(env_id: str, env_kwargs: dict[str, Any]) -> RawEnvironment:
    """As `make_environment`, for a caller that resets before it steps, and counts the steps itself."""
    return raw(make_environment(env_id, env_kwargs, UNCHECKED))


def make_filmed_environment(
    env_id: str, env_kwargs: dict[str, Any], folder: Path
) -> tuple[RawEnvironment, Callable[[], list[NDArray[np.uint8]]]]:
    """As `make_raw_environment`; its first episode is an .mp4 file in the new `folder` once it is closed.

    The second tells the pictures of that episode so far, until it is closed.

    Raises EnvironmentMissing, RunError where the environment draws no pictures, and PackageMissing where nothing here
    can draw or encode them.
    """
    from gymnasium.error import DependencyNotInstalled
    from gymnasium.wrappers import RecordVideo

    _draw_without_a_screen()
    environment = make_environment(env_id, env_kwargs, UNCHECKED | {"render_mode": "rgb_array"})
    if "rgb_array" not in environment.metadata.get("render_modes", ()):
        raise RunError(f"environment {env_id} draws no pictures (rgb_array)", "leave --video out")
    _check_drawing(environment, env_id)
    try:
        recorder = RecordVideo(environment, str(folder), episode_trigger=lambda episode: episode == 0)
        return raw(recorder), lambda: [np.asarray(frame) for frame in recorder.recorded_frames]
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
        environment.action_space,
        categories_of(environment.observation_space),
    )


def categories_of(space: "gymnasium.Space[Any]") -> tuple[int, ...]:
    """As `RawEnvironment.categories`, of an observation space."""
    described = described_space(space)
    known, sample = DeclaredSpace.of(described, "the environment").categories(), leaves(space.sample())
    vectors = {path: array for path, array in sample.items() if array.dtype.kind not in "US" and not is_picture(array)}
    counts = tuple(
        count
        for path, array in vectors.items()
        for count in (known[path].counts if path in known else (0,) * array.size)
    )
    return counts if any(counts) else ()


def make_environment(
    env_id: str, env_kwargs: dict[str, Any], options: dict[str, Any] | None = None
) -> "gymnasium.Env[Any, Any]":
    """Gymnasium's environment, in the wrappers that `env_kwargs` names; `options` are of `gymnasium.make`.

    A `render_mode` in `env_kwargs` is left out: it is no part of the task. Raises EnvironmentMissing where the
    environment is unknown, needs a package, or does not take the arguments.
    """
    import gymnasium
    from gymnasium.error import DependencyNotInstalled, Error

    _register(env_id)
    _log_mujoco_warnings(gymnasium.registry.get(env_id))
    wrappers = _wrappers(env_id, env_kwargs)
    install = f"install what {env_id} needs (pip install 'gymnasium[all]' covers Gymnasium's own environments)"
    arguments = _constructors(env_kwargs) | {STEP_LIMIT: _told_limit(env_id, env_kwargs)} | (options or {})
    # What an environment's packages print as they are imported (pygame's greeting) is no part of a command's answer.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        # An older environment version is asked for on purpose: the one that made the data.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*(out of date|deprecated|render_modes|precision lowered).*")
        try:
            environment = gymnasium.make(env_id, **arguments)
            if wrappers and environment.spec:  # an entry point may apply the first of them itself
                wrappers = wrappers[len(environment.spec.additional_wrappers) :]
            for make, kwargs in wrappers:
                environment = make(environment, **kwargs)
            return environment
        except DependencyNotInstalled as error:
            raise EnvironmentMissing(f"environment {env_id} needs a package: {error}", install) from None
        except ModuleNotFoundError as error:
            raise EnvironmentMissing(f"environment {env_id} needs the module {error.name or error}", install) from None
        except Error as error:
            raise EnvironmentMissing(
                f"Gymnasium {gymnasium.__version__} cannot make environment {env_id}: {error}",
                "install the package that registers it, or name an installed one with --env-id: "
                f"{did_you_mean(env_id, gymnasium.registry)}",
            ) from None
        except BROKEN as error:
            if _broken_alone(env_id):
                raise EnvironmentMissing(
                    f"environment {env_id} is broken in the versions that are installed ({_versions(env_id)}): "
                    f"{type(error).__name__}: {error}",
                    FITTING_VERSIONS if _plug_in(env_id) else "mend it, or name another with --env-id",
                ) from error
            raise EnvironmentMissing(
                f"environment {env_id} cannot be made with the arguments {env_kwargs}: {type(error).__name__}: {error}",
                OTHER_ARGUMENTS,
            ) from error


def declared_action_space(info: DatasetInfo) -> ActionSpace | None:
    """The action space that a dataset declares, else that of its environment; None where neither is known."""
    if info.action_space or not info.env_id:
        return info.action_space
    return environment_action_space(info.env_id, info.env_kwargs)


def declared_observation_space(info: DatasetInfo, *, look: bool) -> dict[str, Any] | None:
    """The observation space that a dataset declares, as Minari describes it; with `look`, else its environment's.

    None where neither is known.
    """
    if info.observation_space or not info.env_id or not look:
        return info.observation_space
    return _of_environment(info.env_id, info.env_kwargs, lambda made: described_space(made.observation_space))


def described_space(space: "gymnasium.Space[Any]") -> dict[str, Any]:
    """A space as Minari describes it in JSON, without what only boxes and texts have."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {name: described_space(inner) for name, inner in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "subspaces": [described_space(inner) for inner in space.spaces]}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "start": space.start.tolist(), "nvec": space.nvec.tolist()}
    return {"type": type(space).__name__}


def step_limit(env_id: str, env_kwargs: dict[str, Any]) -> int | None:
    """The number of steps after which the environment's clock runs out; None where it has none or is not known here."""
    import gymnasium

    if (limit := _told_limit(env_id, env_kwargs)) is not None:
        return limit
    import_plug_in(_plug_in(env_id))
    spec = gymnasium.registry.get(env_id)
    return spec.max_episode_steps if spec else None


def environment_action_space(env_id: str, env_kwargs: dict[str, Any]) -> ActionSpace | None:
    """The environment's action space, or None where it is not installed here."""
    return _of_environment(
        env_id, env_kwargs, lambda made: action_space_from_gymnasium(made.action_space, "environment")
    )


def _of_environment(env_id: str, env_kwargs: dict[str, Any], ask: Callable[["gymnasium.Env[Any, Any]"], T]) -> T | None:
    try:
        environment = make_environment(env_id, env_kwargs)
    except EnvironmentMissing:
        return None
    try:
        return ask(environment)
    finally:
        environment.close()


def action_space_from_gymnasium(space: "gymnasium.Space[Any]", source: str) -> ActionSpace | None:
    """A Discrete or one-dimensional Box as plain numbers; None for a Box without any bound.

    Raises NotYet for any other space.
    """
    from gymnasium.spaces import Box, Discrete

    if isinstance(space, Discrete) and space.start == 0:
        return DiscreteActions(int(space.n))
    if isinstance(space, Box) and len(space.shape) == 1:
        return declared_box(space.low, space.high, source)
    raise NotYet(f"action space {space} is not supported", "use a Discrete space from 0, or a Box of one dimension")


def action_kind_of(space: "gymnasium.Space[Any]") -> str:
    """What an environment takes, in words that the policies' own kinds share."""
    from gymnasium.spaces import Box, Discrete

    if isinstance(space, Discrete) and space.start == 0:
        return f"one of {space.n} actions"
    if isinstance(space, Box) and len(space.shape) == 1:
        return f"{space.shape[0]} real numbers as action"
    return f"actions of {space}"


def environment_spec_json(env_id: str, env_kwargs: dict[str, Any]) -> str | None:
    """Gymnasium's description of the environment as JSON, or None where it is not registered here."""
    import copy

    import gymnasium
    from gymnasium.envs.registration import WrapperSpec

    import_plug_in(_plug_in(env_id))
    if env_id not in gymnasium.registry:
        return None
    spec = copy.deepcopy(gymnasium.registry[env_id])
    spec.kwargs = {**spec.kwargs, **_constructors(env_kwargs)}
    spec.max_episode_steps = _told_limit(env_id, env_kwargs) or spec.max_episode_steps
    spec.additional_wrappers = tuple(WrapperSpec(*wrapper) for wrapper in _described_wrappers(env_id, env_kwargs))
    return spec.to_json()


def environment_of_spec(spec: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The id and the arguments that Gymnasium's description tells, its inverse: a limit only if not the registered one.

    Raises TypeError where it is no such description.
    """
    import gymnasium

    env_id, limit = spec.get("id"), spec.get(STEP_LIMIT)
    if not isinstance(env_id, str | None):
        raise TypeError(f"an environment's id is a text, not {env_id}")
    arguments = {}
    # Of a plug-in nothing is looked up: the answer must not depend on whether it is installed or imported.
    registered = gymnasium.registry.get(env_id) if env_id and not _plug_in(env_id) else None
    if limit is not None and (registered is None or registered.max_episode_steps != limit):
        arguments[STEP_LIMIT] = limit
    if spec.get(WRAPPERS):
        arguments[WRAPPERS] = spec[WRAPPERS]
    return env_id, arguments | (spec.get("kwargs") or {})


def _constructors(env_kwargs: dict[str, Any]) -> dict[str, Any]:
    return _without(env_kwargs, STEP_LIMIT, WRAPPERS, "render_mode")


def _without(env_kwargs: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {key: value for key, value in env_kwargs.items() if key not in left_out}


def _told_limit(env_id: str, env_kwargs: dict[str, Any]) -> int | None:
    """The step limit among the arguments, None for none or null. Raises EnvironmentMissing where it is no count."""
    limit = env_kwargs.get(STEP_LIMIT)
    if limit is None or (type(limit) is int and limit > 0):
        return limit
    raise EnvironmentMissing(
        f"environment {env_id}: {STEP_LIMIT} is {limit!r}, not a number of steps from 1",
        OTHER_ARGUMENTS,
    )


def _described_wrappers(env_id: str, env_kwargs: dict[str, Any]) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Name, entry point and arguments of each wrapper, the innermost first."""
    try:
        return [(str(w["name"]), str(w["entry_point"]), w["kwargs"]) for w in env_kwargs.get(WRAPPERS) or ()]
    except (KeyError, TypeError):
        raise EnvironmentMissing(
            f"environment {env_id}: {WRAPPERS} is not as Gymnasium writes it: {env_kwargs[WRAPPERS]}",
            OTHER_ARGUMENTS,
        ) from None


def _wrappers(env_id: str, env_kwargs: dict[str, Any]) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    """Makers of the wrappers that the data were recorded through, with their arguments.

    Only those of the lists: a data file never names code that is loaded. Raises EnvironmentMissing for another.
    """
    found = []
    for name, entry_point, kwargs in _described_wrappers(env_id, env_kwargs):
        own = entry_point.startswith("gymnasium.wrappers.")
        if name in (WATCHING if own else WATCHERS):
            continue
        if own and name in APPLIED and isinstance(kwargs, dict):
            module = importlib.import_module("gymnasium.wrappers")
        elif name in APPLIED_OF_MINIGRID and entry_point == f"minigrid.wrappers:{name}" and isinstance(kwargs, dict):
            _need_plug_in("minigrid", f"the wrapper {name} of {env_id}")
            module = importlib.import_module("minigrid.wrappers")
        elif entry_point == f"{__name__}:{arranged_observation.__name__}" and isinstance(kwargs, dict):
            module, name = sys.modules[__name__], arranged_observation.__name__
        else:
            raise EnvironmentMissing(
                f"the data of {env_id} were recorded through the wrapper {name} ({entry_point}), "
                "which cannot be applied here: without it, it is another task",
                f"if that task is meant, leave it out: --env-kwargs '{json.dumps(_without(env_kwargs, WRAPPERS))}'",
            )
        kwargs = {
            key: tuple(value) if key in TUPLES and isinstance(value, list) else value for key, value in kwargs.items()
        }
        found.append((getattr(module, name), kwargs))
    return found


def arranged_observation(
    env: "gymnasium.Env[Any, Any]",
    columns: Sequence[int] | None = None,
    offset: Sequence[float] = (),
    appended: Sequence[float] = (),
) -> "gymnasium.Env[Any, Any]":
    """Arrange an environment's flat observation as older data have it; an entry point for a catalogue's `env_kwargs`.

    Takes the columns (all if None), adds the offset to the first of them, and appends constants.
    """
    import gymnasium
    from gymnasium.wrappers import TransformObservation

    (size,) = env.observation_space.shape or ()  # a ValueError where it is not flat
    chosen = np.arange(size) if columns is None else np.arange(size)[list(columns)]
    shift = np.zeros(len(chosen))
    shift[: len(offset)] = offset
    constants = np.array(appended, dtype=np.float64)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (len(chosen) + len(constants),), np.float64)
    return TransformObservation(env, lambda values: np.concatenate([values[chosen] + shift, constants]), space)


def foreign_watchers(env_id: str, env_kwargs: dict[str, Any]) -> list[str]:
    """Wrappers of other packages that are left out because, by their names, they only watch."""
    described = _described_wrappers(env_id, env_kwargs)
    return [
        f"{name} ({entry_point})"
        for name, entry_point, _ in described
        if name in WATCHERS and not entry_point.startswith("gymnasium.wrappers.")
    ]


def _plug_in(env_id: str) -> str | None:
    """The package that registers ids of this kind; None for Gymnasium's own, and where it is not known."""
    name = env_id.rpartition(":")[2]
    return next((package for package, ids in PLUG_INS.items() if ids.match(name)), None)


def import_plug_in(package: str | None) -> Exception | None:
    """Import a plug-in, which registers its environments: Gymnasium loads none by itself. What went wrong, if so.

    What it prints goes to the log.
    """
    if package is None:
        return None
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(package)
        except BROKEN as error:
            return error
    if printed.getvalue():
        logging.getLogger(__name__).info("%s: %s", package, printed.getvalue().strip())
    return None


def is_absent(package: str, error: Exception) -> bool:
    """Whether an import failed because the package itself is not installed; not because it, or another, is broken."""
    return isinstance(error, ModuleNotFoundError) and error.name == package


def _need_plug_in(package: str, needed_by: str) -> None:
    """Import a plug-in. Raises EnvironmentMissing where it is not installed, or is broken."""
    error = import_plug_in(package)
    if error is None:
        return
    name = package.replace("_", "-")
    if is_absent(package, error):
        raise EnvironmentMissing(f"{needed_by} needs the package {name}", INSTALL) from None
    raise EnvironmentMissing(
        f"{needed_by} needs {name}, which is installed and cannot be imported: {type(error).__name__}: {error}",
        FITTING_VERSIONS,
    ) from error


def _register(env_id: str) -> None:
    """Have the plug-in of this id register its environments.

    Raises EnvironmentMissing where it is not installed, is broken, or registers no environment at all: ale_py catches
    the error of a Gymnasium that it does not fit.
    """
    import gymnasium

    package = _plug_in(env_id)
    if package is None:
        return
    _need_plug_in(package, f"environment {env_id}")
    if not any(PLUG_INS[package].match(name) for name in gymnasium.registry):
        raise EnvironmentMissing(
            f"environment {env_id} needs {package.replace('_', '-')}, which registers nothing in the versions that are "
            f"installed ({_versions(env_id)})",
            FITTING_VERSIONS,
        )


def _broken_alone(env_id: str) -> bool:
    """Whether an environment cannot be made with its own arguments either."""
    import gymnasium

    try:
        gymnasium.make(env_id, **UNCHECKED).close()
    except BROKEN:
        return True
    return False


def _versions(env_id: str) -> str:
    packages = ("gymnasium", *filter(None, [_plug_in(env_id)]), "mujoco")
    found = {item.name: item.version for item in importlib.metadata.distributions() if item.name}
    named = [package.replace("_", "-") for package in packages]
    return ", ".join(f"{name} {found[name]}" for name in named if name in found)


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
