"""IQ-Learn's dictionaries and their kin: what they say of their episodes, and that every step keeps its neighbours."""

import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import LENGTHS, Arrays, check_aligned, flat, read, save, steps

from iq_offline.data.formats import dictionaries, pickles
from iq_offline.data.observations import leaves
from iq_offline.errors import DatasetUnreadable, InvalidEpisode


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
        "kinds (to decide otherwise: iq-offline convert SOURCE --to NAME-v0 --ends termination)",
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


def test_done_without_terminal_is_a_truncation(tmp_path: Path):
    """Done beside terminal is a truncation where they differ."""
    named = [steps(0, 3) | {"terminals": np.zeros(3)}, steps(1, 2) | {"terminals": np.array([0, 1])}]
    episodes = read(save(tmp_path / "demo.pkl", named))
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(False, True), (True, False)]


def test_a_start_after_no_terminal_marks_a_truncation(tmp_path: Path):
    """A start where no terminal is before it marks a truncation."""
    content = flat([steps(number, 3) for number in range(3)])
    content |= {"terminals": [0, 0, 1, 0, 0, 0, 0, 0, 1], "episode_starts": [1, 0, 0, 1, 0, 0, 1, 0, 0]}
    del content["dones"]
    source = dictionaries.read(save(tmp_path / "demo.pkl", content), "demo")
    kinds = [(episode.terminated, episode.truncated) for episode in source]
    assert kinds == [(True, False), (False, True), (True, False)]
    assert source.info.notes == ()


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
def test_one_flag_is_decided_by_lengths_or_option(
    tmp_path: Path, lengths: list[int], ends: str, terminated: list[bool]
):
    """One flag for both kinds is decided by the lengths or as asked."""
    content = [steps(number, length) for number, length in enumerate(lengths)]
    source = dictionaries.read(save(tmp_path / "demo.pkl", content), "demo", ends=ends)
    assert [episode.terminated for episode in source] == terminated
    assert [episode.truncated for episode in source] == [not flag for flag in terminated]
    (note,) = source.info.notes
    assert "the layout has one flag for both kinds" in note


def test_a_shared_second_longest_length_is_no_clock(tmp_path: Path):
    """An end shared at the longest length but one is no clock."""
    longer = steps(2, 5) | {"dones": np.zeros(5, dtype=bool)}
    episodes = read(save(tmp_path / "demo.pkl", [steps(0, 4), steps(1, 4), longer]))
    assert [episode.terminated for episode in episodes] == [True, True, False]
    assert [episode.unflagged for episode in episodes] == [False, False, True]


def test_an_unflagged_flat_tail_is_kept_as_truncated(tmp_path: Path):
    """The tail of flat arrays without a flag is kept as truncated."""
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


def test_last_successors_need_one_more_observation(tmp_path: Path):
    """Without next observations the last successor is unknown unless there is one observation more."""

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


def test_all_arrays_have_a_final_observation_or_none(tmp_path: Path):
    """Every array must have the observation after the last action or none."""
    episodes = [steps(number, 3) for number in range(2)]
    content = flat(episodes) | {"lengths": [3, 3]}
    seen = content["observations"]
    last = np.concatenate([np.append(one["observations"], one["next_observations"][-1:], axis=0) for one in episodes])
    mixed = content | {"observations": {"a": seen, "b": last}}
    mixed["next_observations"] = dict.fromkeys("ab", content["next_observations"])
    (first, second) = read(save(tmp_path / "whole.pkl", mixed))  # next observations tell it of both
    np.testing.assert_array_equal(leaves(second.observations)["a"], leaves(second.observations)["b"])
    del mixed["next_observations"], content["next_observations"]
    with pytest.raises(InvalidEpisode, match=r"observations\['a'\] 6, observations\['b'\] 8\): only some"):
        read(save(tmp_path / "mixed.pkl", mixed))
    for arrays, known in ({"a": seen, "b": seen}, False), ({"a": last, "b": last}, True):
        (first, second) = read(save(tmp_path / "alike.pkl", content | {"observations": arrays}))
        assert first.successor_known == second.successor_known == known


def test_pictures_and_integer_actions_pass_through(tmp_path: Path):
    pictures = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    content = {"obs": pictures, "actions": np.array([0, 2]), "rewards": np.ones(2), "dones": np.array([0, 1])}
    (episode,) = read(save(tmp_path / "demo.pkl", content))
    np.testing.assert_array_equal(episode.observations, pictures[[0, 1, 1]])
    assert episode.observations.dtype == np.uint8
    np.testing.assert_array_equal(episode.actions, [0, 2])
    assert episode.actions.dtype == np.int64


def test_missing_rewards_become_zeros_with_a_note(tmp_path: Path):
    """Demonstrations without rewards get zeros and it is said."""
    content = [{k: v for k, v in steps(0, 3).items() if k != "rewards"}]
    source = dictionaries.read(save(tmp_path / "demo.pkl", content), "demo")
    (episode,) = source
    np.testing.assert_array_equal(episode.rewards, np.zeros(3))
    assert "it records no rewards: zeros stand in their place" in source.info.notes


def test_unused_keys_are_listed_as_left_out(tmp_path: Path):
    """What is no step's data is named as left out."""
    source = dictionaries.read(save(tmp_path / "demo.pkl", [steps(0, 3) | {"image_obs": np.zeros(0)}]), "demo")
    assert "left out, being no step's data: image_obs" in source.info.notes


@pytest.mark.parametrize("key", ["observations", "actions"])
def test_a_missing_key_is_named_with_those_present(tmp_path: Path, key: str):
    """A missing key is named with the keys that are there."""
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
def test_a_broken_episode_is_named_others_are_kept(tmp_path: Path, change: Arrays, problem: str):
    """A broken episode is named and the others can be kept."""
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
def test_an_inconsistent_layout_is_refused(tmp_path: Path, content: object, problem: str):
    """A layout that does not add up is refused."""
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match=problem):
        read(save(tmp_path / "demo.pkl", content))


def test_an_array_of_plain_numbers_has_no_layout(tmp_path: Path):
    np.save(tmp_path / "demo.npy", np.ones((3, 7)))
    with pytest.raises(DatasetUnreadable, match="holds neither dictionaries nor rows of five"):
        read(tmp_path / "demo.npy")
