"""The catalogue: every entry is whole, its hashes are the published ones, and names lead where they should."""

import re
import tomllib
from collections import Counter

import numpy as np
import pytest

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry, Kind, catalogue, find_entries, locate
from iq_offline.data.environments import make_environment, make_raw_environment, step_limit
from iq_offline.errors import UnknownDataset

ENTRIES = list(catalogue().values())
FILES = [entry for entry in ENTRIES if entry.kind is Kind.FILE]
# A few of the hashes that TensorFlow Datasets publishes for these files.
PUBLISHED = {
    "hopper-medium-v2": (152756557, "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0"),
    "walker2d-full-replay-v2": (285115514, "f2720f9d27b2acef6ec9a7d9ad3b80b6c2078ad4467cee668a81e3b3c80bcf2a"),
    "ant-expert-v2": (373231677, "fa22531ca79ea051006fa48bb652120d2e12c813919c530369a03c2688311b0f"),
    "door-human-v1": (3121206, "f9691288c3ddf2b4e7b31bdae0d8444b80ba035515495f8a902d60c43ee09370"),
    "antmaze-umaze-v2": (232532949, "5ef15257771c50ef4d23c7de001750e96c8bb5d9b6a5e4a821dcfb3065fbd130"),
    "antmaze-large-diverse-v2": (231183710, "84f775eb7956ea9cc766704710dc520a8ab357adc7522ade47f556f0e335e284"),
}


def test_every_family_has_its_datasets():
    assert Counter(entry.family for entry in ENTRIES) == {
        "demo": 6,
        "d4rl-locomotion-v2": 24,
        "d4rl-adroit-v1": 12,
        "d4rl-antmaze-v2": 6,
        "d4rl-kitchen-v0": 3,
        "d4rl-maze2d-v1": 8,
        "minari-atari": 57,
        "minari-d4rl": 34,
        "minari-minigrid": 170,
        "minari-mujoco": 28,
    }


def test_ids_are_unique_and_families_match_their_files():
    """No id is given twice and each family is named as its file."""
    ids = []
    for file in (paths.shipped("datasets") / "catalogue").glob("*.toml"):
        content = tomllib.loads(file.read_text())
        assert content["family"]["id"] == file.stem
        ids += [item["id"] for item in content["dataset"]]
    assert len(ids) == len(set(ids)) == len(ENTRIES) == 348


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hashes_are_there(name: str):
    assert (catalogue()[name].bytes, catalogue()[name].sha256) == PUBLISHED[name]


def test_all_locomotion_files_can_be_verified():
    assert all(entry.sha256 and entry.bytes for entry in ENTRIES if entry.family == "d4rl-locomotion-v2")


def test_no_hash_stands_for_two_datasets():
    hashes = [entry.sha256 for entry in ENTRIES if entry.sha256]
    assert len(hashes) == len(set(hashes)) == 44


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry.id)
def test_a_file_has_a_host_and_a_mirror(entry):
    """A file has a host and a mirror of its own name."""
    assert len(entry.urls) == 2
    assert all(re.fullmatch(r"https?://[\w.-]+/\S+", url) for url in entry.urls)
    assert all(url.endswith(f"/{entry.file}") for url in entry.urls)
    assert entry.file.endswith(".hdf5")
    assert entry.reference is not None
    assert entry.reference.random < entry.reference.expert
    assert entry.reference.name == f"d4rl-in-{entry.env_id}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_entry_has_a_description_and_a_card(entry):
    """An entry says what it is and has a card."""
    assert entry.description
    assert entry.env_id
    assert entry.card is not None
    assert (paths.shipped("datasets") / entry.card).is_file()
    assert entry.stored_path.is_relative_to(paths.minari_home() if entry.kind is Kind.MINARI else paths.home())


def test_environments_of_gymnasium_itself_are_registered():
    import gymnasium

    plain = {entry.env_id for entry in ENTRIES if re.fullmatch(r"[A-Z][A-Za-z0-9]+-v[1-5]", entry.env_id)}
    robotics = {name for name in plain if name.startswith(("Adroit", "Franka"))}
    assert plain - robotics <= set(gymnasium.registry)
    assert len(plain - robotics) >= 15


def test_minari_entries_have_their_environments_step_limit():
    """Minari recordings have the step limit of their environment."""
    import gymnasium

    for entry in find_entries(family="minari-mujoco"):
        assert entry.env_id
        assert entry.max_episode_steps == gymnasium.spec(entry.env_id).max_episode_steps, entry.id
        assert entry.steps
        assert entry.episodes
        assert entry.steps <= entry.episodes * entry.max_episode_steps


@pytest.mark.parametrize(
    ("name", "random", "expert", "steps"),
    [
        ("halfcheetah-random-v2", -280.178953, 12135.0, 1000),
        ("hopper-medium-replay-v2", -20.272305, 3234.3, 1000),
        ("pen-cloned-v1", 96.262799, 3076.8331017826877, 100),
        ("antmaze-umaze-diverse-v2", 0.0, 1.0, 700),
        ("kitchen-mixed-v0", 0.0, 4.0, None),
        ("maze2d-large-v1", 6.7, 273.99, 800),
        ("maze2d-large-dense-v1", 30.569041, 303.4857382709002, 800),
    ],
)
def test_references_and_step_limits_match_d4rl(name: str, random: float, expert: float, steps: int | None):
    """References and step limits of the data are those of D4RL."""
    entry = catalogue()[name]
    assert entry.reference is not None
    assert (entry.reference.random, entry.reference.expert, entry.max_episode_steps) == (random, expert, steps)


MAZES = {
    "umaze": ("#####", "#GOO#", "###O#", "#OOO#", "#####"),
    "open": ("#######", "#OOOOO#", "#OOGOO#", "#OOOOO#", "#######"),
}
"""D4RL's point mazes: a position counts rows and columns of these, from 0."""


@pytest.mark.parametrize("name", ["maze2d-umaze-v1", "maze2d-open-dense-v0"])
def test_point_maze_has_positions_of_d4rl(name: str):
    """Starts lie in free cells of D4RL's map, the goal in its own, and walls stop the ball where they do there."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    entry, maze = catalogue()[name], MAZES[name.split("-")[1]]
    environment = make_environment(entry.env_id or "", dict(entry.env_kwargs))
    offset = np.array(entry.env_kwargs["additional_wrappers"][-1]["kwargs"]["offset"])
    (goal,) = [(row, column) for row, line in enumerate(maze) for column, cell in enumerate(line) if cell == "G"]
    for seed in range(20):
        observation, _ = environment.reset(seed=seed)
        assert observation.shape == (4,)
        row, column = np.round(observation[:2] + 0.2).astype(int)  # D4RL's cells have their middle at -0.2
        assert maze[row][column] in "OG"
        np.testing.assert_allclose(environment.unwrapped.goal + offset, goal, atol=0.45 + 0.01)  # type: ignore[attr-defined]
    for _ in range(150):
        observation, *_ = environment.step(np.array([1.0, 0.0], dtype=np.float32))
    assert observation[0] <= len(maze) - 2 + 0.3  # pushed against the last row
    environment.close()


@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "antmaze-large-play-v2"])
def test_ant_starts_at_origin_of_d4rl(name: str):
    """The ant starts at the origin; the goal is 4 for each cell away, as in D4RL."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    entry, goal = catalogue()[name], {"umaze": (0, 8), "large": (32, 24)}[name.split("-")[1]]
    environment = make_environment(entry.env_id or "", dict(entry.env_kwargs))
    offset = np.array(entry.env_kwargs["additional_wrappers"][-1]["kwargs"]["offset"])
    for seed in range(5):
        observation, _ = environment.reset(seed=seed)
        assert observation.shape == (29,)
        np.testing.assert_allclose(observation[:3], [0, 0, 0.75], atol=1.2)
        np.testing.assert_allclose(environment.unwrapped.goal + offset, goal, atol=1.01)  # type: ignore[attr-defined]
    environment.close()


def test_kitchen_has_observations_of_d4rl():
    """30 positions, then the goal: 0 but for what the four subtasks ask for."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    entry = catalogue()["kitchen-mixed-v0"]
    environment = make_environment(entry.env_id or "", dict(entry.env_kwargs))
    observation, _ = environment.reset(seed=0)
    kitchen = environment.unwrapped
    np.testing.assert_allclose(observation[:30], kitchen.data.qpos[:30], atol=0.1)  # type: ignore[attr-defined]
    asked = np.concatenate([kitchen.goal[task] for task in entry.env_kwargs["tasks_to_complete"]])  # type: ignore[attr-defined]
    assert sorted(observation[30:][observation[30:] != 0]) == pytest.approx(sorted(asked[asked != 0]))
    environment.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "size"),
    [
        (entry, size)
        for family, size in (("d4rl-maze2d", 4), ("d4rl-antmaze", 29), ("d4rl-kitchen", 60))
        for entry in find_entries(family=family)
    ],
    ids=lambda part: getattr(part, "id", ""),
)
def test_mazes_and_kitchen_evaluate_as_catalogued(entry: CatalogueEntry, size: int):
    """Their environments have the data's observations and step limit, and their reference is of that environment."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    made = make_raw_environment(entry.env_id or "", dict(entry.env_kwargs))
    made.reset(seed=0)
    observation, *_ = made.step(made.action_space.sample())
    assert (made.observation_size, observation.shape) == (size, (size,))
    assert step_limit(entry.env_id or "", dict(entry.env_kwargs)) == (entry.max_episode_steps or 280)
    made.close()


@pytest.mark.parametrize(
    ("module", "families"),
    [("ale_py", ("minari-atari",)), ("minigrid", ("minari-minigrid",))],
    ids=["atari", "minigrid"],
)
def test_environments_of_other_packages_are_registered(module: str, families: tuple[str, ...]):
    """Atari's and BabyAI's ids are registered, and the first of each family can be made with its arguments."""
    import gymnasium

    pytest.importorskip(module, reason=f"needs {module}")
    for family in families:
        entries = find_entries(family=family)
        make_environment(entries[0].env_id or "", dict(entries[0].env_kwargs)).close()
        assert {entry.env_id for entry in entries} <= set(gymnasium.registry)


def test_environment_arguments_make_returns_comparable_to_the_reference():
    """An environment gets what makes its returns comparable to the reference."""
    assert all(not entry.env_kwargs["continuing_task"] for entry in find_entries(family="d4rl-antmaze"))
    assert all(len(entry.env_kwargs["tasks_to_complete"]) == 4 for entry in find_entries(family="d4rl-kitchen"))
    assert "bottom burner" in catalogue()["kitchen-mixed-v0"].env_kwargs["tasks_to_complete"]
    assert all(entry.env_kwargs == {"max_episode_steps": 100} for entry in find_entries("pen-*-v1"))


@pytest.mark.parametrize("entry", [entry for entry in FILES if "replay" in entry.id], ids=lambda entry: entry.id)
def test_a_replay_entry_explains_its_time_outs(entry: CatalogueEntry):
    """A replay says what its time outs are worth."""
    assert any("time-out" in defect.what and "never" in defect.handling for defect in entry.defects)


def test_minari_recordings_say_where_reference_scores_are_from():
    assert all(entry.reference is None and entry.reference_note for entry in ENTRIES if entry.kind is Kind.MINARI)
    assert all("100 steps" in entry.defects[0].what for entry in find_entries("D4RL/pen/*"))


def test_ant_has_the_observations_of_the_data():
    entry = catalogue()["ant-medium-v2"]
    environment = make_environment(entry.env_id, dict(entry.env_kwargs))
    assert environment.observation_space.shape == (111,)
    environment.close()


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"pattern": "walker2d"}, 9),
        ({"pattern": "hopper-*-v2"}, 6),
        ({"family": "adroit"}, 12),
        ({"environment": "ant-v4"}, 6),
        ({"pattern": "EXPERT", "family": "minari-mujoco"}, 11),
    ],
)
def test_entries_are_found_by_parts_of_their_names(filters: dict[str, str], count: int):
    assert len(find_entries(**filters)) == count


def test_an_empty_search_names_the_nearest_ids():
    """A search that finds nothing names what is near."""
    with pytest.raises(UnknownDataset, match=r"no dataset matches 'hoper-medium-v2'\n.*hopper-medium-v2"):
        find_entries("hoper-medium-v2")


def test_an_old_version_is_refused_with_the_reason():
    """An old version is refused with the reason to use the new one."""
    with pytest.raises(UnknownDataset, match=r"hopper-medium-v2.*v2 mends them"):
        locate("hopper-medium-v0")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("atari/pong/expert-v9", Kind.MINARI),
        ("https://example.org/a/b.hdf5", Kind.FILE),
        ("hf://me/mine/x-v0", Kind.MINARI),
    ],
)
def test_unlisted_data_are_fetched_without_a_hash(name: str, kind: Kind):
    """What is not listed can still be fetched without a hash."""
    entry = locate(name)
    assert (entry.family, entry.kind, entry.sha256) == ("unlisted", kind, None)


@pytest.mark.parametrize("name", ["mujoco/../hopper/expert-v0", "../escape/expert-v0", "hf://me/../x-v0", "a/b..c-v0"])
def test_a_name_that_climbs_is_refused(name: str):
    with pytest.raises(UnknownDataset):
        locate(name)


def test_two_urls_never_share_a_place():
    urls = [
        "https://a.org/q.hdf5?id=1",
        "https://a.org/q.hdf5?id=2",
        "https://a.org/a/b.hdf5",
        "https://a.org/a-b.hdf5",
    ]
    places = {locate(url).stored_path for url in urls}
    assert len(places) == 4
    assert "secret" not in locate("https://me:secret@a.org/q.hdf5").id


def test_misspelt_bundled_dataset_names_the_nearest():
    """A bundled dataset is never looked for on the network."""
    with pytest.raises(UnknownDataset) as error:
        locate("demo/swimer/expert-v0")
    assert "did you mean demo/swimmer/expert-v0" in error.value.remedy
