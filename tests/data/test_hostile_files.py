"""Files that try: code, sizes that lie, bombs, members that climb. All are refused, by name, and nothing happens."""

import io
import os
import pickle
import pickletools
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from iq_offline.data.formats import d3rlpy, dictionaries, flat_npz, numpy_files, pickles
from iq_offline.errors import DatasetUnreadable, UserError

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FLOATS = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self._call = (called, arguments)

    def __reduce__(self) -> Any:
        return self._call


def refused(data: bytes) -> str:
    with pytest.raises(DatasetUnreadable) as caught:
        pickles.loads(data, "demo.pkl")
    return caught.value.problem


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int):
    """A pickle that runs code is refused by name without effect."""
    effect = tmp_path / "effect"
    path = tmp_path / "demo.pkl"
    path.write_bytes(pickle.dumps([{"observations": Runs(os.system, f"touch {effect}")}], protocol=protocol))
    with pytest.raises(DatasetUnreadable, match=r"asks for 'posix\.system', which is code: none of it was run"):
        dictionaries.read(path, "demo")
    assert not effect.exists()
    with path.open("rb") as file:
        pickle.load(file)
    assert effect.exists(), "the pickle would have done it"


def test_an_npy_that_runs_code_is_refused(tmp_path: Path):
    """An .npy of objects that runs code is refused without effect."""
    effect, path = tmp_path / "effect", tmp_path / "demo.npy"
    cells = np.empty((1, 5), dtype=object)
    cells[0, 0] = Runs(os.system, f"touch {effect}")
    np.save(path, cells, allow_pickle=True)
    with pytest.raises(DatasetUnreadable, match=r"posix\.system"):
        dictionaries.read(path, "demo")
    assert not effect.exists()


def test_an_npz_member_that_runs_code_is_refused(tmp_path: Path):
    """An .npz member of objects that runs code is refused and infos are not even looked at."""
    effect, path = tmp_path / "effect", tmp_path / "demo.npz"
    infos = np.empty(2, dtype=object)
    infos[0] = Runs(os.system, f"touch {effect}")
    arrays = {
        "obs": np.zeros((3, 2)),
        "acts": np.zeros((2, 1)),
        "indices": np.zeros(0, dtype=int),
        "terminal": np.array([True]),
    }
    np.savez(path, **arrays, infos=infos)
    (episode,) = flat_npz.read(path, "demo")
    assert len(episode) == 2
    np.savez(path, observations=infos, actions=np.zeros((2, 1)), lengths=np.array([2]))
    with pytest.raises(DatasetUnreadable, match=r"posix\.system"):
        flat_npz.read(path, "demo")
    assert not effect.exists()


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "'os.system'"),
        (b"(S'true'\nios\nsystem\n.", "'os.system'"),
        (b"(cbuiltins\nset\nS'x'\no.", "an object of a class"),
        (b"\x80\x02cbuiltins\nset\n)\x81.", "an object of a class"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "'os.system'"),
        (b"\x80\x02\x82\x01.", "an extension by its number"),
        (b"Pelsewhere\n.", "an object kept elsewhere"),
        (b"\x80\x05\x97.", "a buffer kept elsewhere"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "'builtins.eval'"),
        (b"cbuiltins\ngetattr\n.", "'builtins.getattr'"),
        (b"cnumpy\nload\n.", "'numpy.load'"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "'numpy.core.multiarray.fromfile'"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0blist.append\x93.", "'builtins.list.append'"),
        (b"cbuiltins\nbytearray\n(I99999999999\ntR.", "'builtins.bytearray'"),
        (b"cbuiltins\nlist\n(I9\ntR.", "a call of 'builtins.list'"),
        (b"cnumpy\ndtype\n}(S'__doc__'\nS'x'\nub.", "a change of an object's inside"),
        (b"}(S'__class__'\nS'x'\nd(S'a'\nS'b'\ndb.", "a change of an object's inside"),
        (b"I1\n(tR.", "a call of its own data"),
        (b"c\x1b[2Jx\ny\n.", r"'\x1b[2Jx.y'"),
    ],
)
def test_instructions_that_call_or_change_are_refused(data: bytes, asked: str):
    """Every instruction that could call or change is refused."""
    assert refused(data) == f"demo.pkl asks for {asked}, which is code: none of it was run"


def test_every_instruction_of_pickle_is_known():
    assert set(pickles.INSTRUCTIONS) == {ord(opcode.code) for opcode in pickletools.opcodes}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (ARRAY + b"(I1\n(I1000000000000000\nt" + FLOATS + b"I00\nS''\ntb.", r"8000000000000000 bytes, there are 0"),
        (ARRAY + b"(I1\n(I0\nI9000000000000000000\nt" + FLOATS + b"I00\nS''\ntb.", "is no array's"),
        (ARRAY + b"(I1\n(I-1\nt" + FLOATS + b"I00\nS''\ntb.", "no shape"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\n(I99\ntS'b'\ntR.", "another kind"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "'V8' is no plain number"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "'rot13', not latin1"),
        (b"\x80\x02B\xff\xff\xff\xff.", "4294967295 bytes are asked for"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".", f"{2**60} bytes are asked for"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "2147483647 bytes are asked for"),
        (b"L" + b"9" * 5000 + b"L\n.", "limit"),
        (b"h\x05.", "Memo value not found at index 5"),
        (b"a.", "IndexError"),
        (b"(.", "ValueError"),
        (b"N(.", "ValueError"),
        (b"(lN", "0 are left"),
        (b"NN.", "too many values"),
        (b"\xff", "no pickle has the instruction 0xff"),
        (b"obs,act\n0.1,0.2\n", "asks for"),
        (b"Hello, world\n", "no pickle has the instruction 0x48"),
        (b"", "0 are left"),
        (b"N.N", "goes on after its pickle: 2 of 3 bytes are read"),
        (b"](NNu.", "keys without a dictionary"),
        (b"}](NNd(ts.", "Error"),
    ],
)
def test_lies_and_damage_are_refused(data: bytes, why: str):
    assert why in refused(data)


def test_a_far_memo_slot_takes_no_memory():
    """No memory is taken for a memo slot far away."""
    assert pickles.loads(b"\x80\x02Nr\xff\xff\xff\xff.", "demo.pkl") is None


def test_every_truncation_of_a_pickle_is_refused():
    data = pickle.dumps([{"observations": np.zeros((3, 2)), "actions": np.ones(3)}], protocol=2)
    for length in range(len(data)):
        assert refused(data[:length])


def test_random_damage_is_refused_or_harmless():
    rng = np.random.default_rng(0)
    whole = bytearray(pickle.dumps({"observations": np.zeros((3, 2)), "x": [1.5, "a", {2}]}, protocol=4))
    for _ in range(2000):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            pickles.loads(bytes(data), "demo.pkl")
        except DatasetUnreadable:
            continue


def test_deep_nesting_needs_no_recursion(tmp_path: Path):
    """Deep nesting is read without recursion and refused when it is data."""
    deep = b"]" * 200_000 + b"a" * 199_999
    assert isinstance(pickles.loads(deep + b".", "demo.pkl"), list)
    path = tmp_path / "demo.pkl"
    path.write_bytes(b"}(V" + b"observations\n" + deep + b"Vactions\n](K\x00K\x01eVdones\n](I00\nI01\neu.")
    with pytest.raises(DatasetUnreadable, match="observations is lists inside lists without end"):
        dictionaries.read(path, "demo")


@pytest.mark.slow
@pytest.mark.parametrize("innermost", [[0.0], []])
def test_a_billion_laughs_are_not_laughed(tmp_path: Path, innermost: list[Any]):
    laughs = innermost
    for _ in range(7):
        laughs = [laughs] * 60
    path = tmp_path / "demo.pkl"
    path.write_bytes(pickle.dumps({"observations": laughs, "actions": [0, 1], "dones": [False, True]}))
    assert path.stat().st_size < 2000
    started = time.process_time()
    with pytest.raises(DatasetUnreadable, match="observations unfolds into"):
        dictionaries.read(path, "demo")
    assert time.process_time() - started < 100  # of 60^7 elements; coverage makes it ten times slower


def test_a_repeated_large_array_is_not_multiplied(tmp_path: Path):
    """One large array named many times is not multiplied."""
    array = np.zeros((1, 1 << 18))
    path = tmp_path / "demo.pkl"
    for action, done in ([0], [1]), (0, 1):
        content = {"observations": [array] * 5000, "actions": [action] * 5000, "dones": [done] * 5000}
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DatasetUnreadable, match=r"observations unfolds into 0\.\d+ GB from 2\.\d+ MB"):
            dictionaries.read(path, "demo")


def test_keys_that_take_forever_to_hash_are_refused():
    pairs = (b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) + b"0" for i in range(60))
    assert "a key or member is a tuple" in refused(b"\x80\x02})q\x000" + b"".join(pairs) + b"h\x3cNs.")


def test_a_list_that_holds_itself_is_refused(tmp_path: Path):
    """A list that holds itself is refused when it is data."""
    path = tmp_path / "demo.pkl"
    path.write_bytes(b"\x80\x02}(Vobservations\n]q\x00h\x00aVactions\n](K\x00K\x01eVdones\n](I00\nI01\neu.")
    with pytest.raises(DatasetUnreadable, match="observations is lists inside lists without end"):
        dictionaries.read(path, "demo")


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (npy("<f8", "(1000000000000000,)"), "takes 8000000000000000 bytes, there are 0"),
        (npy("<f8", "(2,)", b"\0" * 8), "takes 16 bytes, there are 8"),
        (npy("<f8", "(1,)", b"\0" * 9), "takes 8 bytes, there are 9"),
        (npy("<f8", "(-1,)"), "no shape"),
        (npy("<f8", "(0, 9000000000000000000)"), "is no array's"),
        (npy("|S0", "(1000000000000000,)"), "no plain number"),
        (npy("<M8[ns]", "(1,)", b"\0" * 8), "no plain number"),
        (npy("|V8", "(1,)", b"\0" * 8), "no plain number"),
        (npy("<f8", "(" * 3000), "is no .npy array"),
        (npy("<f8", "__import__('os').system('true')"), "is no .npy array"),
        (b"\x93NUMPY\x03\x00\0\0\0\0", "of a version for named columns"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", "is no .npy array"),
        (b"\x93NUM", "is no .npy array"),
        (b"obs,act\n", "is no .npy array"),
        (npy("|O", "(3,)", pickle.dumps(np.zeros(3))), "something else than its header tells"),
        (npy("|O", "(3,)", pickle.dumps([1, 2, 3])), "something else than its header tells"),
    ],
)
def test_an_npy_that_lies_is_refused(tmp_path: Path, data: bytes, why: str):
    path = tmp_path / "demo.npy"
    path.write_bytes(data)
    with pytest.raises(DatasetUnreadable) as caught:
        numpy_files.read_npy(path)
    assert why in caught.value.problem


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return path


ONE = npy("<f8", "(1,)", b"\0" * 8)


@pytest.mark.parametrize(
    "name",
    ["../obs.npy", "a/../../obs.npy", "/obs.npy", "C:/obs.npy", "..\\obs.npy", "C:\\obs.npy", "obs.py", "obs", "a/"],
)
def test_a_climbing_or_foreign_member_is_refused(tmp_path: Path, name: str):
    """A member that climbs or is no array is refused."""
    path = archive(tmp_path / "demo.npz", {"acts.npy": ONE, name: ONE})
    with pytest.raises(DatasetUnreadable, match="which is no array's name"):
        flat_npz.read(path, "demo")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["demo.npz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_encrypted_or_oddly_packed_members_are_refused(tmp_path: Path):
    """A member twice an encrypted and a strangely packed one are refused."""
    path = tmp_path / "demo.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("obs.npy", ONE)
        file.writestr("obs.npy", ONE)
    with pytest.raises(DatasetUnreadable, match=r"two members 'obs\.npy'"):
        flat_npz.read(path, "demo")
    data = bytearray(archive(path, {"obs.npy": ONE}, zipfile.ZIP_STORED).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetUnreadable, match="is encrypted"):
        flat_npz.read(path, "demo")
    archive(path, {"obs.npy": ONE}, zipfile.ZIP_LZMA)
    with pytest.raises(DatasetUnreadable, match="packed in another way"):
        flat_npz.read(path, "demo")


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path):
    """A decompression bomb is refused before it is unpacked."""
    path = tmp_path / "demo.npz"
    with zipfile.ZipFile(path, "w") as file:
        item = zipfile.ZipInfo("obs.npy")
        item.compress_type = zipfile.ZIP_DEFLATED
        with file.open(item, "w", force_zip64=True) as member:
            member.write(npy("<f8", f"({300 << 17},)"))
            for _ in range(300):
                member.write(bytes(1 << 20))
    started = time.process_time()
    with pytest.raises(DatasetUnreadable, match=r"'obs\.npy' claims 0\.31 GB, packed in 0\.\d+ MB"):
        flat_npz.read(path, "demo")
    assert time.process_time() - started < 0.1


def relabelled(path: Path, field: int, value: int) -> None:
    """Change a 4-byte field of the first member's entry in the archive's directory."""
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + field
    data[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(data)


COMPRESSED_SIZE, SIZE, CHECKSUM = 20, 24, 16


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        (SIZE, 1 << 30, r"claims 1\.07 GB"),
        (SIZE, len(ONE) - 1, "Bad CRC-32"),
        (SIZE, len(ONE) + 1, "takes 8 bytes, there are 9"),
        (COMPRESSED_SIZE, 1 << 20, r"claims 1048576 bytes of packed members"),
        (CHECKSUM, 0, "is damaged"),
    ],
)
def test_sizes_and_checksums_that_lie_are_refused(tmp_path: Path, field: int, value: int, why: str):
    path = archive(tmp_path / "demo.npz", {"obs.npy": ONE})
    relabelled(path, field, value)
    with pytest.raises(DatasetUnreadable, match=why), numpy_files.Archive(path) as opened:
        opened.read("obs")


def test_every_truncation_of_an_npz_is_refused(tmp_path: Path):
    path = tmp_path / "demo.npz"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, obs=np.zeros((3, 2)), acts=np.zeros((2, 1)), indices=np.zeros(0, int), terminal=np.ones(1, bool)
    )
    for length in range(0, len(buffer.getvalue()), 7):
        path.write_bytes(buffer.getvalue()[:length])
        with pytest.raises(UserError):
            list(flat_npz.read(path, "demo"))


def d3rlpy_file(path: Path, **changes: Any) -> Path:
    content = {
        "columns": ["observations", "actions", "rewards", "terminated"],
        "num_episodes": 1,
        "version": "2.1",
        "observations_0": np.zeros((2, 3)),
        "actions_0": np.zeros((2, 1)),
        "rewards_0": np.zeros((2, 1)),
        "terminated_0": True,
    } | changes
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_episodes": 10**15}, "the key 'observations_1' is missing"),
        ({"num_episodes": -1}, "has no episodes"),
        ({"num_episodes": [1, 2]}, "has no episodes"),
        ({"observations_0": h5py.ExternalLink("other.h5", "/x")}, "is a link"),
        ({"observations_0": h5py.SoftLink("/observations_0")}, "is a link"),
        ({"observations_0": "text"}, "not numbers"),
        ({"observations_0": 1.0}, "is one number"),
        ({"actions_0": np.zeros((3, 1))}, r"unequal lengths \(actions 3, observations 2, rewards 2\)"),
        ({"terminated_0": [True, False]}, "has 2 entries, not one flag"),
        ({"terminated_0": np.nan}, "terminated_0 holds other values than 0 and 1: nan at episode 0"),
        ({"iq_offline": 3}, "is not a group"),
        ({"iq_offline/about": np.frombuffer(b"[1", dtype=np.uint8)}, "in its 'about'"),
        ({"iq_offline/about": np.frombuffer(b'{"seeds": ["x"]}', dtype=np.uint8)}, r"seeds\.0"),
        ({"iq_offline/about": np.frombuffer(b"{}", dtype=np.uint8)}, "tells of 0 episodes, num_episodes is 1"),
    ],
)
def test_a_d3rlpy_file_that_lies_is_refused(tmp_path: Path, changes: dict[str, Any], why: str):
    path = d3rlpy_file(tmp_path / "demo.h5", **changes)
    with pytest.raises(UserError, match=why):
        list(d3rlpy.read(path, "demo"))


def test_random_d3rlpy_damage_is_refused_or_harmless(tmp_path: Path):
    """Random damage to a d3rlpy file is refused or harmless."""
    whole = d3rlpy_file(tmp_path / "demo.h5").read_bytes()
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=20):
            data[int(place)] = int(rng.integers(256))
        (tmp_path / "demo.h5").write_bytes(data)
        try:
            list(d3rlpy.read(tmp_path / "demo.h5", "demo"))
        except UserError:
            refusals += 1
    assert refusals > 30
