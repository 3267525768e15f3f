"""A YAML table means what it says, or is refused with the line."""

from pathlib import Path

import pytest

from iq_offline.errors import ConfigError
from iq_offline.pipeline.plan import Plan
from iq_offline.pipeline.schema import load_table
from iq_offline.pipeline.strict_yaml import load_yaml
from iq_offline.stages.run import RunRequest, run_pipeline

TABLE = "name: t\nmethods: {bc: {}}\ndatasets: {a: demo/cartpole/expert-v0}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.yaml"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("datasets:\n  a: x\n  a: y\n", "line 3: the key 'a' stands twice"),
        ("seeds: 0\nseeds: 1\n", "line 2: the key 'seeds' stands twice"),
        ("methods: {bc: {set: {x: 1, x: 2}}}\n", "the key 'x' stands twice"),
        ("seeds: 010\n", "010 is not a plain whole number"),
        ("seeds: 0x1F\n", "0x1F is not a plain whole number"),
        ("seeds: 1:30\n", "1:30 is not a plain whole number"),
        ("seeds: " + "9" * 5000 + "\n", "is not a plain whole number"),
        ("set: {x: .nan}\n", ".nan is not a finite decimal number"),
        ("set: {x: .inf}\n", ".inf is not a finite decimal number"),
        ("? [a, b]\n: c\n", "a key that is no text"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a [*a]\n", "recursive"),
        ("a: 1\n---\na: 2\n", "single document"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
)
def test_misleading_yaml_is_refused(file: Path, text: str, problem: str):
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"not readable as YAML|nested too deeply") as caught:
        load_yaml(file)
    assert problem in caught.value.problem


def test_expanding_aliases_are_refused(file: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="by its aliases"):
        load_yaml(file)


def test_words_of_yaml_1_1_are_texts(file: Path):
    """`off`, `yes` and dates are what they look like; only `true` and `false` are truth values."""
    file.write_text("a: off\nb: yes\nc: 2024-01-02\nd: true\ne: 1.5\nf: -3\non: x\n")
    assert load_yaml(file) == {"a": "off", "b": "yes", "c": "2024-01-02", "d": True, "e": 1.5, "f": -3, "on": "x"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("seeds: 0-999999999\n", "1,000,000,000 seeds"),
        ("seeds: 0-99\ndemos: [1,2,3,4,5,6,7,8,9]\nsubsample: [1,2,3,4,5,6,7,8,9,10]\nepisodes: 1.5\n", "episodes"),
        ("seeds: true\n", "seeds"),
        ("overrides: {a: text}\n", "overrides"),
        ("per_run: [{where: text}]\n", "per_run"),
        ("demos: 2.0\n", "demos"),
        ("episodes: '5'\n", "episodes"),
    ],
)
def test_wrong_types_are_refused(file: Path, more: str, problem: str):
    file.write_text(TABLE + more)
    with pytest.raises(ConfigError) as caught:
        load_table(file)
    assert problem in caught.value.problem


def test_too_many_runs_are_not_planned(file: Path):
    file.write_text(TABLE + "seeds: 0-99999\ndemos: [1, 2]\n")
    with pytest.raises(ConfigError, match="asks for 200,000 runs"):
        Plan.of(load_table(file))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("set: {learning_rate: fast}\n", "learning_rate='fast' does not fit"),
        ("set: {learning_rate: -1}\n", "learning_rate=-1 does not fit"),
        ("set: {hidden_sizes: 3}\n", "hidden_sizes=3 does not fit"),
        ("preset: quik\n", "unknown preset 'quik'"),
        ("set: {learning_rat: 1}\n", "has no setting 'learning_rat'"),
    ],
)
def test_dry_run_finds_unknown_settings(file: Path, tmp_path: Path, more: str, problem: str):
    """What would fail after an hour of work fails before any work."""
    file.write_text(TABLE + more)
    with pytest.raises(ConfigError) as caught:
        run_pipeline(RunRequest(str(file), dry_run=True, out=tmp_path / "out"), pytest.fail)
    assert problem in caught.value.problem


@pytest.mark.parametrize("name", ["d{a}ta", "new\nline"])
def test_patterns_in_file_names_are_refused(tmp_path: Path, linear_task: Path, name: str):
    folder = tmp_path / name
    folder.mkdir()
    linear_task.rename(folder / "c.hdf5")
    (folder / "t.yaml").write_text("name: t\nmethods: {bc: {}}\ndatasets: {a: c.hdf5}\n")
    with pytest.raises(ConfigError, match="braces or control characters"):
        run_pipeline(RunRequest(str(folder / "t.yaml"), dry_run=True, out=tmp_path / "out"), pytest.fail)


def test_credentials_in_a_table_are_refused(file: Path, tmp_path: Path):
    """Snakemake would write a password into its logs and job scripts; the message does not repeat it."""
    file.write_text("name: t\nmethods: {bc: {}}\ndatasets: {a: 'https://user:hush-hush@host.example/a.hdf5'}\n")
    with pytest.raises(ConfigError, match="password or token") as caught:
        run_pipeline(RunRequest(str(file), dry_run=True, out=tmp_path / "out"), pytest.fail)
    assert "hush" not in str(caught.value)
