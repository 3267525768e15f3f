"""Presets: what a file may hold, and that what does not apply is never passed over in silence."""

import pytest
from tests_support import requested

from iq_offline import paths
from iq_offline.config.train import TrainConfig, algorithm_config
from iq_offline.errors import ConfigError
from iq_offline.methods import METHODS
from iq_offline.stages.learning_data import warn_of_low_bound
from iq_offline.stages.presets import read_preset
from iq_offline.stages.train import train_run

MISTAKES = {
    "a table of no method": ("[iq-continous]\nupdates = 3", "no method has settings called [iq-continous]"),
    "a key outside a table": ("updates = 3\n[iq-continuous]", "'updates' stands outside a table"),
    "a table that is none": ("iq-continuous = 3", "iq-continuous is no table"),
    "several tables in one": ("[[iq-continuous]]\nupdates = 3", "iq-continuous is no table"),
    "no TOML": ("updates = = 3", "is not TOML"),
    "no text": (b"\xff", "is not TOML"),
    "no file": (None, "no preset file at "),
}


def discard(_: object) -> None:
    """Hear nothing."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_file_that_holds_anything_else_is_refused(mistake, linear_task, tmp_path, home):
    """And nothing is written."""
    content, problem = MISTAKES[mistake]
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        train_run(*requested(str(linear_task), preset=str(file), out=tmp_path / "run"), discard, discard)
    assert problem in caught.value.problem
    assert str(file) in caught.value.problem
    assert not (tmp_path / "run").exists()
    assert not home.exists()


def test_refusal_names_the_tables_that_there_are(tmp_path):
    (tmp_path / "mine.toml").write_text("[iq]")
    with pytest.raises(ConfigError) as caught:
        read_preset(str(tmp_path / "mine.toml"))
    assert {"iq-continuous", "iq-discrete", "bc-discrete", "reward-labelled"} <= set(
        caught.value.remedy.partition(": ")[2].split(", ")
    )


@pytest.mark.parametrize(
    ("method", "preset", "said"),
    [
        ("bc", "reward", ["nothing of preset reward applies: it has no table [bc-continuous] (its tables: iq-contin"]),
        ("bc", "quick", []),
        ("bc", None, []),
    ],
)
def test_preset_of_which_nothing_applies_is_told(method, preset, said, linear_task, tmp_path):
    heard: list[str] = []
    small = ("hidden_sizes=[8]",)
    out = tmp_path / "run"
    asked = requested(str(linear_task), method, preset, 1, small, warn=heard.append, out=out, tracked=False)
    train_run(*asked, discard, heard.append)
    assert [text[: len(start)] for text, start in zip(heard, said, strict=True)] == said


def test_shipped_presets_are_whole_and_no_methods():
    """Their values fit every method that has such settings; a method's own are in the registry."""
    names = [file.stem for file in (paths.shipped("pipelines") / "presets").glob("*.toml")]
    assert not set(names) & set(METHODS)
    fitted = set()
    for name in names:
        presets = read_preset(name)
        for method in METHODS:
            for discrete in (False, True):
                fitted.add((name, algorithm_config(method, discrete=discrete, presets=presets).name))
        assert set(presets[0]) <= {table for preset, table in fitted if preset == name}


@pytest.mark.parametrize(
    ("method", "overrides", "said"),
    [
        ("ls-iq", ("target_bound=100",), ["target_bound=100 cuts off the values of up to 200"]),
        ("ls-iq", ("fixed_rewards=[1,-4]",), ["target_bound=200 cuts off the values of up to 400"]),
        ("ls-iq", ("fixed_rewards=[1,-4]", "target_bound=none"), []),
        ("iq", ("gamma=0.999",), []),
        *((method, (), []) for method in METHODS),
    ],
)
@pytest.mark.parametrize("discrete", [False, True])
def test_bound_below_fixed_rewards_values_is_told(method, overrides, said, discrete):
    """And no method's defaults have one."""
    heard: list[str] = []
    algorithm = algorithm_config(method, discrete=discrete, overrides=overrides)
    warn_of_low_bound(TrainConfig(dataset="any", method=method, algorithm=algorithm), heard.append)
    assert [text.partition(" that fixed_rewards")[0] for text in heard] == said
