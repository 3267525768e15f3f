"""Layouts of other projects: what they say of their episodes, and that every step keeps its own neighbours."""

import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d3rlpy, dictionaries, flat_npz, numpy_files, pickles
from iq_offline.data.observations import leaves
from iq_offline.errors import ConfigError, DatasetUnreadable, InvalidEpisode

FOREIGN = Path(__file__).parents[3] / "shared/data/foreign"
Arrays = dict[str, Any]
Reader = Callable[..., EpisodeSource]
WRITERS = [(flat_npz.read, flat_npz.write, "demo.npz"), (d3rlpy.read, d3rlpy.write, "demo.h5")]


def steps(episode: int, length: int) -> Arrays:
    """An episode whose numbers tell where they belong: observation = 100 * episode + step, action = its thousandth."""
    numbers = 100.0 * episode + np.arange(length + 1)
    observations = np.stack([numbers, numbers], axis=1).astype(np.float32)
    ends = np.zeros(length, dtype=bool)
    ends[-1] = True
    return {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": numbers[:-1, None] / 1000,
        "rewards": np.full(length, episode + 1.0),
        "dones": ends,
    }


def save(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def read(path: Path, **options: Any) -> list[Episode]:
    return list(dictionaries.read(path, "demo", **options))


def check_aligned(episodes: list[Episode], lengths: list[int], *, successor_known: bool = True) -> None:
    assert [len(episode) for episode in episodes] == lengths
    for number, episode in enumerate(episodes):
        expected = 100.0 * number + np.arange(len(episode) + 1)
        if not successor_known:
            expected[-1] -= 1
        assert episode.successor_known == successor_known
        for array in leaves(episode.observations).values():
            np.testing.assert_array_equal(array, np.stack([expected, expected], axis=1))
        np.testing.assert_allclose(episode.actions, (100.0 * number + np.arange(len(episode)))[:, None] / 1000)
        np.testing.assert_array_equal(episode.rewards, np.full(len(episode), number + 1.0))


def flat(episodes: list[Arrays]) -> Arrays:
    return {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}


def as_lists(episodes: list[Arrays]) -> Arrays:
    return {key: [tuple(episode[key]) for episode in episodes] for key in episodes[0]}


def as_rows(episodes: list[Arrays]) -> Any:
    arrays = flat(episodes)
    count = len(arrays["dones"])
    rows = np.empty((count, 5), dtype=object)
    for place, key in enumerate(dictionaries.ROW):
        for number in range(count):
            rows[number, place] = arrays[key][number]
    return rows


LENGTHS = [3, 1, 4, 4]
LAYOUTS: dict[str, Callable[[list[Arrays]], object]] = {
    "a dictionary an episode": lambda episodes: episodes,
    "an array of dictionaries": lambda episodes: np.array(episodes, dtype=object),
    "plain lists": lambda episodes: [{k: v.tolist() for k, v in episode.items()} for episode in episodes],
    "a dictionary a step": lambda episodes: [
        {key: values[step] for key, values in episode.items()}
        for episode in episodes
        for step in range(len(episode["dones"]))
    ],
    "lists of episodes": as_lists,
    "lists of episodes and lengths": lambda episodes: as_lists(episodes) | {"lengths": LENGTHS},
    "flat arrays": flat,
    "flat arrays and lengths": lambda episodes: flat(episodes) | {"lengths": np.array(LENGTHS)},
    "flat columns": lambda episodes: {k: v[:, None] if v.ndim == 1 else v for k, v in flat(episodes).items()},
    "rows": as_rows,
    "a list of rows": lambda episodes: [list(row) for row in as_rows(episodes)],
    "an ordered dictionary": lambda episodes: OrderedDict(flat(episodes)),
    "a defaultdict": lambda episodes: defaultdict(list, as_lists(episodes)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_layout_keeps_its_steps_together(tmp_path: Path, layout: str, protocol: int):
    content = LAYOUTS[layout]([steps(number, length) for number, length in enumerate(LENGTHS)])
    source = dictionaries.read(save(tmp_path / "demo.pkl", content, protocol), "demo")
    episodes = list(source)
    check_aligned(episodes, LENGTHS)
    assert [episode.terminated for episode in episodes] == [True, True, False, False]
    assert [episode.truncated for episode in episodes] == [False, False, True, True]
    assert not any(episode.unflagged or episode.discontinuous for episode in episodes)
    assert source.info.notes == (
        "2 ends at the common length 4 are taken as truncations, 2 as terminations: the layout has one flag for both "
        "kinds (--ends says otherwise)",
    )
    assert [len(episode) for episode in source] == LENGTHS, "it is read again as before"


@pytest.mark.parametrize("layout", ["rows", "flat arrays", "an array of dictionaries"])
def test_the_same_in_npy(tmp_path: Path, layout: str):
    content = LAYOUTS[layout]([steps(number, length) for number, length in enumerate(LENGTHS)])
    np.save(tmp_path / "demo.npy", np.array(content, dtype=object), allow_pickle=True)
    check_aligned(read(tmp_path / "demo.npy"), LENGTHS)


@pytest.mark.parametrize(
    "names",
    [
        ("obs", "act", "rew", "next_obs", "done"),
        ("observation", "action", "reward", "next_observation", "terminal"),
        ("states", "actions", "rewards", "next_states", "dones"),
        ("state", "acts", "rews", "next_state", "terminals"),
    ],
)
def test_keys_go_by_many_names(tmp_path: Path, names: tuple[str, ...]):
    ours = ("observations", "actions", "rewards", "next_observations", "dones")
    named = [{theirs: steps(n, k)[key] for key, theirs in zip(ours, names, strict=True)} for n, k in enumerate(LENGTHS)]
    check_aligned(read(save(tmp_path / "demo.pkl", named)), LENGTHS)


def test_pickles_of_python_2_are_read(tmp_path: Path):
    # What Python 2.7 and NumPy 1.16 write with protocol 2 for {'obs': array([[0., 1.]]), ...}: texts are byte strings.
    def array(values: np.ndarray) -> bytes:
        raw = values.tobytes()
        shape = b"".join(b"K" + bytes([length]) for length in values.shape)
        kind = values.dtype.str[1:].encode()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("
            + (shape + b"tcnumpy\ndtype\nU\x02" + kind + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ")
            + (b"\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(raw)]) + raw + b"tb")
        )

    episode = steps(0, 3)
    body = b"".join(b"U" + bytes([len(key)]) + key.encode() + array(value * 1.0) for key, value in episode.items())
    (tmp_path / "demo.pkl").write_bytes(b"\x80\x02](}(" + body + b"ue.")
    check_aligned(read(tmp_path / "demo.pkl"), [3])


def test_what_pickle_itself_reads_is_read_the_same():
    content = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(10)[::3],
        "big": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "texts": np.array(["a", "bc"]),
        "objects": np.array([[1, "x"], [None, (2.5, b"\xff\n")]], dtype=object),
        "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.array(7)],
        "plain": [
            True,
            None,
            10**30,
            -1,
            300,
            70000,
            -(2**40),
            1e300,
            "é\n\\",
            b"",
            b"\x00\xff",
            (),
            (1,),
            (1, 2, 3, 4),
        ],
        "sets": [{1, 2}, frozenset([3]), set()],
        "dicts": [OrderedDict(a=1), defaultdict(int, b=2), {}],
    }
    content["again"] = content["c"]
    for protocol in range(6):
        data = pickle.dumps(content, protocol=protocol)
        ours = pickles.loads(data, "demo")
        assert isinstance(ours, dict)
        assert ours["again"] is ours["c"]
        assert list(ours) == list(content)
        for key in ("plain", "sets", "dicts"):
            assert ours[key] == content[key]
        for key in ("c", "fortran", "strided", "big", "empty", "texts", "objects"):
            np.testing.assert_array_equal(ours[key], content[key])
            assert ours[key].dtype == content[key].dtype.newbyteorder("=")
        assert ours["scalars"] == content["scalars"]
        assert [type(scalar) for scalar in ours["scalars"]] == [type(scalar) for scalar in content["scalars"]]


def test_two_flags_tell_both_kinds_of_end(tmp_path: Path):
    episodes = [steps(number, 3) for number in range(3)]
    for terminated, truncated in (("terminals", "timeouts"), ("terminations", "truncations"), ("dones", "truncated")):
        named = []
        for number, episode in enumerate(episodes):
            ends = episode["dones"]
            named.append({k: v for k, v in episode.items() if k != "dones"} | {terminated: ends & (number != 1)})
            named[-1][truncated] = ends & (number == 1)
        source = dictionaries.read(save(tmp_path / "demo.pkl", named), "demo")
        assert [(episode.terminated, episode.truncated) for episode in source] == [
            (True, False),
            (False, True),
            (True, False),
        ]
        assert source.info.notes == ()


def test_done_beside_terminal_is_a_truncation_where_they_differ(tmp_path: Path):
    named = [steps(0, 3) | {"terminals": np.zeros(3)}, steps(1, 2) | {"terminals": np.array([0, 1])}]
    episodes = read(save(tmp_path / "demo.pkl", named))
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("lengths", "ends", "terminated"),
    [
        ([4, 4], "auto", [False, False]),
        ([2, 4, 3], "auto", [True, True, True]),
        ([2, 4, 4], "auto", [True, False, False]),
        ([4], "auto", [False]),
        ([4, 4], "termination", [True, True]),
        ([2, 4], "truncation", [False, False]),
    ],
)
def test_one_flag_for_both_kinds_is_decided_by_the_lengths_or_as_asked(
    tmp_path: Path, lengths: list[int], ends: str, terminated: list[bool]
):
    content = [steps(number, length) for number, length in enumerate(lengths)]
    source = dictionaries.read(save(tmp_path / "demo.pkl", content), "demo", ends=ends)
    assert [episode.terminated for episode in source] == terminated
    assert [episode.truncated for episode in source] == [not flag for flag in terminated]
    (note,) = source.info.notes
    assert "the layout has one flag for both kinds" in note


def test_an_end_shared_at_the_longest_length_but_one_is_no_clock(tmp_path: Path):
    longer = steps(2, 5) | {"dones": np.zeros(5, dtype=bool)}
    episodes = read(save(tmp_path / "demo.pkl", [steps(0, 4), steps(1, 4), longer]))
    assert [episode.terminated for episode in episodes] == [True, True, False]
    assert [episode.unflagged for episode in episodes] == [False, False, True]


def test_the_tail_of_flat_arrays_without_a_flag_is_kept_as_truncated(tmp_path: Path):
    content = flat([steps(0, 3), steps(1, 2)])
    content["dones"][-1] = False
    first, tail = read(save(tmp_path / "demo.pkl", content))
    assert (first.terminated, first.unflagged) == (True, False)
    assert (tail.truncated, tail.unflagged, len(tail)) == (True, True, 2)


def test_an_unmarked_cut_is_found_by_its_discontinuity(tmp_path: Path):
    content = flat([steps(0, 3), steps(1, 2)])
    content["dones"][2] = False
    episodes = read(save(tmp_path / "demo.pkl", content))
    check_aligned(episodes, [3, 2])
    assert [episode.discontinuous for episode in episodes] == [True, False]
    assert episodes[0].truncated
    joined = {
        key: [np.concatenate([a, b])]
        for key, a, b in zip(content, *map(dict.values, (steps(0, 3), steps(1, 2))), strict=True)
    }
    joined["dones"][0][2] = False
    check_aligned(read(save(tmp_path / "demo.pkl", joined)), [3, 2])


def test_without_next_observations_the_last_successor_is_unknown_unless_there_is_one_observation_more(tmp_path: Path):
    def without(episode: Arrays) -> Arrays:
        return {key: values for key, values in episode.items() if key != "next_observations"}

    def longer(episode: Arrays) -> Arrays:
        last = episode["next_observations"][-1:]
        return without(episode) | {"observations": np.concatenate([episode["observations"], last])}

    episodes = [steps(number, length) for number, length in enumerate(LENGTHS)]
    check_aligned(read(save(tmp_path / "a.pkl", list(map(without, episodes)))), LENGTHS, successor_known=False)
    check_aligned(read(save(tmp_path / "b.pkl", flat(list(map(without, episodes))))), LENGTHS, successor_known=False)
    check_aligned(read(save(tmp_path / "c.pkl", list(map(longer, episodes)))), LENGTHS)
    joined = flat(list(map(longer, episodes))) | {"lengths": LENGTHS}
    check_aligned(read(save(tmp_path / "d.pkl", joined)), LENGTHS)


def test_dictionaries_of_observations_keep_their_parts(tmp_path: Path):
    def parted(episode: Arrays) -> Arrays:
        split = {
            key: {"goal": {"at": episode[key]}, "seen": episode[key]} for key in ("observations", "next_observations")
        }
        return episode | split

    episodes = [parted(steps(number, length)) for number, length in enumerate(LENGTHS)]
    found = read(save(tmp_path / "a.pkl", episodes))
    assert list(leaves(found[0].observations)) == ["goal/at", "seen"]
    check_aligned(found, LENGTHS)
    singles = [
        {
            "obs": {"seen": episode["observations"][step]},
            "next_obs": {"seen": episode["next_observations"][step]},
            "act": episode["actions"][step],
            "rew": episode["rewards"][step],
            "done": episode["dones"][step],
        }
        for episode in (steps(number, length) for number, length in enumerate(LENGTHS))
        for step in range(len(episode["dones"]))
    ]
    found = read(save(tmp_path / "b.pkl", singles))
    assert list(leaves(found[0].observations)) == ["seen"]
    check_aligned(found, LENGTHS)


def test_pictures_and_integer_actions_pass_through(tmp_path: Path):
    pictures = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    content = {"obs": pictures, "actions": np.array([0, 2]), "rewards": np.ones(2), "dones": np.array([0, 1])}
    (episode,) = read(save(tmp_path / "demo.pkl", content))
    np.testing.assert_array_equal(episode.observations, pictures[[0, 1, 1]])
    assert episode.observations.dtype == np.uint8
    np.testing.assert_array_equal(episode.actions, [0, 2])
    assert episode.actions.dtype == np.int64


def test_demonstrations_without_rewards_get_zeros_and_it_is_said(tmp_path: Path):
    content = [{k: v for k, v in steps(0, 3).items() if k != "rewards"}]
    source = dictionaries.read(save(tmp_path / "demo.pkl", content), "demo")
    (episode,) = source
    np.testing.assert_array_equal(episode.rewards, np.zeros(3))
    assert "it records no rewards: zeros stand in their place" in source.info.notes


def test_what_is_no_steps_data_is_named_as_left_out(tmp_path: Path):
    source = dictionaries.read(save(tmp_path / "demo.pkl", [steps(0, 3) | {"image_obs": np.zeros(0)}]), "demo")
    assert "left out, being no step's data: image_obs" in source.info.notes


@pytest.mark.parametrize("key", ["observations", "actions"])
def test_a_missing_key_is_named_with_the_keys_that_are_there(tmp_path: Path, key: str):
    episodes = [steps(0, 3), {k: v for k, v in steps(1, 3).items() if k != key}]
    with pytest.raises(DatasetUnreadable, match=f"demo.pkl: the key '{key}' is missing in entry 1 .it has: .*rewards"):
        read(save(tmp_path / "demo.pkl", episodes))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rewards": np.ones(2)}, r"demo\.pkl: episode 1 has unequal lengths \(actions 3, rewards 2\)"),
        ({"observations": np.ones((5, 2))}, r"episode 1 has unequal lengths \(actions 3, observations 5\)"),
        ({"next_observations": np.ones((3, 4))}, r"episode 1 has observations of shape .*\(2,\).*\(4,\)"),
        ({"dones": np.array([0, 1, 1])}, "episode 1 ends at its step 1, but has 3 steps"),
        ({"lengths": 4}, "episode 1 has 3 actions, its entry in lengths is 4"),
        ({"rewards": np.array([1, np.nan, 1])}, "episode 1 has a value that is not finite in rewards at its step 1"),
        ({k: v[:0] for k, v in steps(0, 1).items()}, "episode 1 has no steps"),
    ],
)
def test_a_broken_episode_is_named_and_the_others_can_be_kept(tmp_path: Path, change: Arrays, problem: str):
    source = dictionaries.read(save(tmp_path / "demo.pkl", [steps(0, 3), steps(1, 3) | change, steps(2, 3)]), "demo")
    with pytest.raises(InvalidEpisode, match=problem):
        list(source)
    faults: list[InvalidEpisode] = []
    assert [episode.index for episode in source.checked(faults.append)] == [0, 2]
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"observations": np.ones((4, 2)), "actions": np.ones(4)}, "does not tell where its episodes end"),
        (flat([steps(0, 3)]) | {"lengths": [4]}, "has 3 actions, its lengths add up to 4"),
        (flat([steps(0, 3)]) | {"lengths": [-1, 4]}, "lengths are not positive whole numbers"),
        (flat([steps(0, 3)]) | {"rewards": np.ones(2), "lengths": [3]}, r"unequal lengths \(actions 3, rewards 2\)"),
        (flat([steps(0, 3)]) | {"dones": np.array([0, 0.5, 1])}, "dones holds other values than 0 and 1"),
        (flat([steps(0, 3)]) | {"observations": ["a", "b", "c"]}, "observations holds 'a', not numbers"),
        (flat([steps(0, 3)]) | {"observations": [[1.0], [1.0, 2.0], [1.0]]}, r"shape \(2,\) in its entry 1, \(1,\)"),
        (as_lists([steps(0, 3), steps(1, 3)]) | {"rewards": [(1, 1, 1)]}, r"unequal numbers of episodes .*rewards 1"),
        ([], "holds neither dictionaries nor rows"),
        (3, "holds neither dictionaries nor rows"),
        ([[1, 2, 3]], "holds neither dictionaries nor rows"),
        ([[np.ones(2), np.ones(1), 1.0, np.ones(2), True]], "holds neither dictionaries nor rows"),
    ],
)
def test_a_layout_that_does_not_add_up_is_refused(tmp_path: Path, content: object, problem: str):
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match=problem):
        read(save(tmp_path / "demo.pkl", content))


def test_an_array_of_plain_numbers_has_no_layout(tmp_path: Path):
    np.save(tmp_path / "demo.npy", np.ones((3, 7)))
    with pytest.raises(DatasetUnreadable, match="holds neither dictionaries nor rows of five"):
        read(tmp_path / "demo.npy")


def flat_arrays(lengths: list[int]) -> Arrays:
    """`imitation`'s layout."""
    episodes = [steps(number, length) for number, length in enumerate(lengths)]
    return {
        "obs": np.concatenate([np.concatenate([e["observations"], e["next_observations"][-1:]]) for e in episodes]),
        "acts": np.concatenate([episode["actions"] for episode in episodes]),
        "rews": np.concatenate([episode["rewards"] for episode in episodes]),
        "infos": np.array([{"step": number} for number in range(sum(lengths))], dtype=object),
        "terminal": np.ones(len(lengths), dtype=bool),
        "indices": np.cumsum(lengths[:-1], dtype=np.int64),
    }


def test_the_flat_npz_is_read_with_every_last_observation(tmp_path: Path):
    arrays = flat_arrays(LENGTHS)
    arrays["terminal"][1] = False
    np.savez_compressed(tmp_path / "demo.npz", **arrays)
    source = flat_npz.read(tmp_path / "demo.npz", "demo")
    episodes = list(source)
    check_aligned(episodes, LENGTHS)
    assert [episode.terminated for episode in episodes] == [True, False, False, False]
    assert source.info.notes[0] == "left out, being no step's numbers: infos"
    check_aligned(list(flat_npz.read(tmp_path / "demo.npz", "demo", ends="termination")), LENGTHS)


def test_a_flat_npz_of_one_episode_has_no_indices(tmp_path: Path):
    np.savez(tmp_path / "demo.npz", **flat_arrays([3]) | {"indices": np.cumsum([])})
    (episode,) = flat_npz.read(tmp_path / "demo.npz", "demo")
    check_aligned([episode], [3])
    assert (episode.terminated, episode.truncated) == (False, True)


def test_fortran_order_and_other_byte_orders_are_read_the_same(tmp_path: Path):
    arrays = flat_arrays(LENGTHS)
    arrays["obs"] = np.asfortranarray(arrays["obs"].astype(">f4"))
    np.savez(tmp_path / "demo.npz", **arrays)
    episodes = list(flat_npz.read(tmp_path / "demo.npz", "demo"))
    check_aligned(episodes, LENGTHS)
    assert leaves(episodes[0].observations)[""].dtype == np.float32
    assert leaves(episodes[0].observations)[""].dtype.isnative


def test_an_npz_of_other_flat_arrays_is_read_too(tmp_path: Path):
    arrays = flat([steps(number, length) for number, length in enumerate(LENGTHS)])
    del arrays["dones"]
    starts = np.zeros(sum(LENGTHS), dtype=bool)
    starts[[0, 3, 4, 8]] = True
    extra = np.array([{}], dtype=object)
    np.savez(tmp_path / "demo.npz", **arrays, episode_starts=starts, episode_returns=extra)
    source = flat_npz.read(tmp_path / "demo.npz", "demo")
    check_aligned(list(source), LENGTHS)
    assert source.info.notes[-1] == "left out, being no step's data: episode_returns"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"obs": np.ones((12, 2))}, r"12 obs for 12 acts of 4 episodes, not 16"),
        ({"rews": np.ones(11)}, r"11 rews for 12 acts"),
        ({"terminal": np.ones(3, bool)}, r"3 terminal for 12 acts of 4 episodes, not 4"),
        ({"indices": np.array([3, 3, 8])}, "episode 1 would begin at step 3 and end before 3"),
        ({"indices": np.array([3, 4, 99])}, "episode 3 would begin at step 99 and end before 12"),
        ({"indices": np.array([3.0, 4.0, 8.0])}, "'indices' are not whole numbers"),
        ({"terminal": np.full(4, 2)}, "'terminal' has 4 entries, not 4 flags"),
        ({"about": np.frombuffer(b"[", dtype=np.uint8)}, "in its 'about'"),
    ],
)
def test_a_flat_npz_that_does_not_add_up_is_refused(tmp_path: Path, change: Arrays, problem: str):
    np.savez(tmp_path / "demo.npz", **flat_arrays(LENGTHS) | change)
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match=problem):
        list(flat_npz.read(tmp_path / "demo.npz", "demo"))


def test_a_flat_npz_without_actions_is_refused(tmp_path: Path):
    arrays = {key: values for key, values in flat_arrays(LENGTHS).items() if key != "acts"}
    np.savez(tmp_path / "demo.npz", **arrays)
    with pytest.raises(DatasetUnreadable, match=r"the key 'acts' is missing \(it has: obs, rews"):
        flat_npz.read(tmp_path / "demo.npz", "demo")


@st.composite
def episode_sets(draw: st.DrawFn, *, parts: bool) -> list[Episode]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8]))
    discrete = draw(st.booleans())
    shape = draw(st.sampled_from([(1,), (3,), (2, 2, 3)]))
    names = draw(st.sampled_from([[""], ["goal", "inner/seen"]])) if parts else [""]
    reward = draw(st.sampled_from([np.float32, np.float64]))
    episodes = []
    for index, length in enumerate(lengths):
        rng = np.random.default_rng(1000 * index + length)
        arrays = {name: rng.integers(0, 255, size=(length + 1, *shape)).astype(dtype) for name in names}
        terminated = draw(st.booleans())
        known = draw(st.booleans())
        if not known:
            for array in arrays.values():
                array[-1] = array[-2]
        observations = (
            arrays[""] if names == [""] else {"goal": arrays["goal"], "inner": {"seen": arrays["inner/seen"]}}
        )
        episodes.append(
            Episode(
                index=index,
                observations=observations,
                actions=rng.integers(0, 4, size=length) if discrete else rng.normal(size=(length, 2)),
                rewards=rng.normal(size=length).astype(reward),
                terminated=terminated,
                truncated=draw(st.booleans()) or not terminated,
                successor_known=known,
                seed=draw(st.none() | st.integers(0, 2**64)),
            )
        )
    return episodes


def check_same(written: list[Episode], found: list[Episode]) -> None:
    assert len(written) == len(found)
    for before, after in zip(written, found, strict=True):
        for name in ("terminated", "truncated", "successor_known", "seed", "index"):
            assert getattr(before, name) == getattr(after, name), name
        arrays = [leaves(side.observations) | {"a": side.actions, "r": side.rewards} for side in (before, after)]
        assert list(arrays[0]) == list(arrays[1])
        for name, array in arrays[0].items():
            assert array.dtype == arrays[1][name].dtype
            np.testing.assert_array_equal(array, arrays[1][name])


@pytest.mark.parametrize(("read_back", "write", "name"), WRITERS, ids=["npz", "d3rlpy"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_episodes_survive_being_written_and_read(
    tmp_path: Path, read_back: Reader, write: Any, name: str, data: Any
):
    episodes = data.draw(episode_sets(parts=name == "demo.h5"))
    info = DatasetInfo("demo", "demo", "test", "Hopper-v5", {"frame_skip": 4}, description="é", origin_sha256="ab")
    write(EpisodeSource(info, episodes=episodes), tmp_path / name)
    source = read_back(tmp_path / name, "demo")
    check_same(episodes, list(source))
    described = (source.info.env_id, source.info.env_kwargs, source.info.description, source.info.origin_sha256)
    assert described == ("Hopper-v5", {"frame_skip": 4}, "é", "ab")
    assert source.info.notes == ()


@pytest.mark.parametrize(("read_back", "write", "name"), WRITERS, ids=["npz", "d3rlpy"])
def test_an_episode_longer_than_32767_steps_survives(tmp_path: Path, read_back: Reader, write: Any, name: str):
    numbers = np.arange(40_001, dtype=np.float64)
    episode = Episode(0, numbers[:, None], numbers[:-1, None] / 4, -numbers[:-1], terminated=True, truncated=False)
    write(EpisodeSource(DatasetInfo("demo", "demo", "test", origin_sha256="ab"), episodes=[episode]), tmp_path / name)
    check_same([episode], list(read_back(tmp_path / name, "demo")))


@pytest.mark.parametrize(("write", "name"), [writer[1:] for writer in WRITERS], ids=["npz", "d3rlpy"])
def test_a_writer_that_fails_midway_leaves_nothing(tmp_path: Path, write: Any, name: str):
    good = Episode(0, np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(2), terminated=True, truncated=False)
    info = DatasetInfo("demo", "demo", "test", origin_sha256="ab")
    for episodes in ([good, InvalidEpisode("episode 1 is broken", "mend it")], []):
        with pytest.raises((InvalidEpisode, DatasetUnreadable)):
            write(EpisodeSource(info, episodes=episodes), tmp_path / "to" / name)
        assert list((tmp_path / "to").iterdir()) == []


def test_the_flat_npz_has_no_place_for_several_observation_arrays(tmp_path: Path):
    parts = {"a": np.zeros((3, 2)), "b": np.zeros((3, 1))}
    episode = Episode(0, parts, np.zeros((2, 1)), np.zeros(2), terminated=True, truncated=False)
    with pytest.raises(ConfigError, match=r"observations of several arrays \(a, b\) have no place"):
        flat_npz.write(EpisodeSource(DatasetInfo("demo", "demo", "test"), episodes=[episode]), tmp_path / "demo.npz")


def test_numpy_reads_the_npz_that_is_written_as_imitation_splits_it(tmp_path: Path):
    arrays = flat_arrays(LENGTHS)
    np.savez(tmp_path / "from.npz", **arrays)
    flat_npz.write(flat_npz.read(tmp_path / "from.npz", "demo"), tmp_path / "to.npz")
    with np.load(tmp_path / "to.npz", allow_pickle=False) as written:
        for key in ("obs", "acts", "rews", "terminal", "indices"):
            np.testing.assert_array_equal(written[key], arrays[key])
            assert written[key].dtype == arrays[key].dtype
        pieces = np.split(written["obs"], written["indices"] + np.arange(len(written["indices"])) + 1)
        assert [len(piece) for piece in pieces] == [length + 1 for length in LENGTHS]
        assert [len(piece) for piece in np.split(written["infos"], written["indices"])] == LENGTHS
    assert (tmp_path / "to.npz").read_bytes()[:2] == b"PK"
    flat_npz.write(flat_npz.read(tmp_path / "from.npz", "demo"), tmp_path / "again.npz")
    assert (tmp_path / "to.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "to.npz") as archive:
        assert archive.testzip() is None
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "equal data, equal files"


@pytest.fixture(scope="module")
def official() -> Any:
    """d3rlpy itself, without the banner that Gym prints and the warnings of its imports."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("d3rlpy", reason="d3rlpy is the extra 'baselines'")


def d3rlpy_episodes(official: Any, *, tuples: bool, discrete: bool) -> list[Any]:
    found = []
    for number, length in enumerate(LENGTHS):
        episode = steps(number, length)
        observations = episode["observations"]
        found.append(
            official.dataset.Episode(
                (observations, observations) if tuples else observations,
                np.arange(length)[:, None] if discrete else episode["actions"].astype(np.float32),
                episode["rewards"][:, None].astype(np.float32),
                number % 2 == 0,
            )
        )
    return found


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_file_that_d3rlpy_dumped_is_read(tmp_path: Path, official: Any, tuples: bool, discrete: bool):
    path = tmp_path / "demo.h5"
    with path.open("w+b") as file:
        official.dataset.dump(d3rlpy_episodes(official, tuples=tuples, discrete=discrete), file)
    source = d3rlpy.read(path, "demo")
    episodes = list(source)
    assert source.info.notes == ("d3rlpy keeps no final observations: the last successor of every episode is unknown",)
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(True, False), (False, True)] * 2
    assert list(leaves(episodes[0].observations)) == (["_index_0", "_index_1"] if tuples else [""])
    if discrete:
        np.testing.assert_array_equal(episodes[2].actions, [0, 1, 2, 3])
    else:
        check_aligned(episodes, LENGTHS, successor_known=False)


@pytest.mark.parametrize("parts", [False, True])
def test_d3rlpy_loads_the_file_that_is_written(tmp_path: Path, official: Any, parts: bool):
    contents = [steps(number, length) for number, length in enumerate(LENGTHS)]
    for content in contents:
        if parts:
            for key in ("observations", "next_observations"):
                content[key] = {"goal": content[key], "seen": content[key]}
    origin = dictionaries.read(save(tmp_path / "demo.pkl", contents), "demo")
    d3rlpy.write(origin, tmp_path / "demo.h5")
    with (tmp_path / "demo.h5").open("rb") as file:
        buffer = official.dataset.ReplayBuffer.load(file, official.dataset.InfiniteBuffer())
    assert len(buffer.episodes) == 4
    for ours, theirs in zip(origin, buffer.episodes, strict=True):
        observations = theirs.observations if parts else [theirs.observations]
        for array, found in zip(leaves(ours.observations).values(), observations, strict=True):
            np.testing.assert_array_equal(array[:-1], found)
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        np.testing.assert_array_equal(ours.rewards[:, None], theirs.rewards)
        assert theirs.terminated == ours.terminated
    assert buffer.sample_transition_batch(4).actions.shape == (4, 1)


def foreign(name: str) -> Path:
    path = FOREIGN / name
    if not path.exists():
        pytest.skip(f"{name}, a real file of another project, is not here")
    return path


@pytest.mark.parametrize(
    ("reader", "name", "episodes", "total", "mean_return", "terminations", "shapes"),
    [
        (dictionaries, "PointMazeRight-v0_50.pkl", 50, 5_000, 100.0, 0, ((101, 6), (100, 2))),
        (dictionaries, "PointMazeLeft-v0_50.npy", 50, 5_000, 100.0, 0, ((101, 6), (100, 2))),
        (dictionaries, "berkeley_Hopper-v2.pkl", 2, 2_000, 3772.670, 0, ((1001, 11), (1000, 3))),
        (flat_npz, "imitation_cartpole.npz", 57, 26_964, 473.053, 42, ((459, 4), (458,))),
        (flat_npz, "imitation_pendulum.npz", 56, 11_200, -189.401, 0, ((201, 3), (200, 1))),
    ],
)
def test_real_files(
    reader: Any,
    name: str,
    episodes: int,
    total: int,
    mean_return: float,
    terminations: int,
    shapes: Any,
    tmp_path: Path,
):
    source = reader.read(foreign(name), "demo")
    found = list(source)
    assert (len(found), sum(map(len, found))) == (episodes, total)
    assert np.mean([episode.episode_return for episode in found]) == pytest.approx(mean_return, abs=1e-3)
    assert sum(episode.terminated for episode in found) == terminations
    assert sum(episode.truncated for episode in found) == episodes - terminations
    assert all(episode.successor_known and not episode.discontinuous for episode in found)
    assert (leaves(found[0].observations)[""].shape, found[0].actions.shape) == shapes
    for read_back, write, written in WRITERS:
        write(source, tmp_path / written)
        check_same(found, list(read_back(tmp_path / written, "demo")))


def test_the_real_flat_npz_agrees_with_numpy():
    path = foreign("imitation_cartpole.npz")
    with np.load(path) as theirs, numpy_files.Archive(path) as ours:
        for key in ("obs", "acts", "rews", "terminal", "indices"):
            np.testing.assert_array_equal(ours.read(key), theirs[key])
