"""A point mass before a barrier, in MuJoCo, and an expert that walks round it: the task of `point_maze.py`.

The arena is [-0.1, 0.6]^2, the barrier lies at y = 0.3 from x = 0.2 to the right wall, the target behind it. Sizes and
reward are those of [IQ21]'s point maze; mass, force, friction, time step and expert are ours.
"""

import math

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ARENA = (-0.1, 0.6)
BARRIER_Y, BARRIER_LEFT, BARRIER_HALF_WIDTH = 0.3, 0.2, 0.01
RADIUS = 0.02
GOAL = np.array([0.4, 0.5])
START_X, START_Y = (-0.05, 0.55), (-0.05, 0.22)
"""Episodes start at rest, uniformly in here: on the near side of the barrier."""
ACTION_COST = 0.001
STEPS = 150
PHYSICS_STEPS = 4

XML = """
<mujoco model="point maze">
  <option timestep="0.005" gravity="0 0 0"/>
  <default>
    <geom solref="0.01 1" condim="1"/>
    <joint type="slide" damping="4"/>
  </default>
  <worldbody>
    <geom name="barrier" type="box" pos="0.4 0.3 0" size="0.2 0.01 0.05"/>
    <geom name="left" type="box" pos="-0.13 0.25 0" size="0.01 0.4 0.05"/>
    <geom name="right" type="box" pos="0.63 0.25 0" size="0.01 0.4 0.05"/>
    <geom name="bottom" type="box" pos="0.25 -0.13 0" size="0.4 0.01 0.05"/>
    <geom name="top" type="box" pos="0.25 0.63 0" size="0.4 0.01 0.05"/>
    <site name="target" pos="0.4 0.5 0" size="0.01"/>
    <body name="point">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom name="point" type="sphere" size="0.02" mass="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="2" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="y" gear="2" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


class PointMaze(gymnasium.Env[Floats, Floats]):
    """Observation (x, y, and their speeds); action: two forces in [-1, 1], at most 0.5 a second each way.

    The reward of a step is -|place reached - target| - 0.001 |action|^2. Nothing terminates; 150 steps of 0.02 seconds.
    """

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self._model = mujoco.MjModel.from_xml_string(XML)
        self._data = mujoco.MjData(self._model)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Floats, dict]:
        """At rest, somewhere on the near side."""
        super().reset(seed=seed, options=options)
        return self.put(np.array([self.np_random.uniform(*START_X), self.np_random.uniform(*START_Y)])), {}

    def put(self, place: Floats) -> Floats:
        """Start at a place (2,), at rest, without drawing one."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = place
        mujoco.mj_forward(self._model, self._data)
        self._step = 0
        return self._observation()

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict]:
        """Push for one step."""
        force = np.clip(action, -1, 1)
        self._data.ctrl[:] = force
        mujoco.mj_step(self._model, self._data, PHYSICS_STEPS)
        self._step += 1
        reward = -distance(self._data.qpos) - ACTION_COST * float(np.square(force).sum())
        return self._observation(), reward, False, self._step >= STEPS, {}

    def _observation(self) -> Floats:
        return np.concatenate([self._data.qpos, self._data.qvel])


def distance(place: Floats) -> float:
    """From a place (2,) straight to the target."""
    return math.dist(place, GOAL)


CLEARANCE = 0.05
CORNER = np.array([BARRIER_LEFT - CLEARANCE, BARRIER_Y])
"""What the way round turns at where the barrier hides the target."""
PAST_CORNER = CORNER + np.array([-0.02, 0.02])
"""What the expert aims at there, so that it does not slow down where it turns."""


def is_hidden(place: Floats) -> bool:
    """Whether the barrier, or the clearance beside its end, lies between a place and the target."""
    if place[1] >= BARRIER_Y:
        return False
    share = (BARRIER_Y - place[1]) / (GOAL[1] - place[1])
    return bool(place[0] + share * (GOAL[0] - place[0]) > CORNER[0] + 1e-3)


def way(place: Floats) -> float:
    """From a place (2,) to the target, round the barrier's end where it hides it."""
    return math.dist(place, CORNER) + distance(CORNER) if is_hidden(place) else distance(place)


CRUISE, APPROACH, STIFFNESS = 0.4, 6.0, 6.0
"""Speed, and what makes it of the remaining distance and a force of the missing speed."""
FRICTION_SHARE = 2.0
"""Force that holds a speed of one: damping 4 over gear 2."""


def expert_action(observation: Floats) -> Floats:
    """Towards the corner or the target, at the cruising speed or slower near it; a deterministic force (2,)."""
    place, speed = observation[:2], observation[2:]
    gap = (PAST_CORNER if is_hidden(place) else GOAL) - place
    wanted = gap * min(APPROACH, CRUISE / max(float(np.hypot(*gap)), 1e-9))
    return np.clip(FRICTION_SHARE * wanted + STIFFNESS * (wanted - speed), -1, 1)
