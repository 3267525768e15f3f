"""A results table: what its file may say, which runs it asks for, and what is refused with the key."""

from pathlib import Path

import pytest
import yaml

from iq_offline.errors import ConfigError
from iq_offline.pipeline.plan import Plan
from iq_offline.pipeline.schema import ResultsTable, load_table

SHIPPED = Path(__file__).parents[2] / "pipelines"
SMALL = {"name": "t", "datasets": {"hop": "demo/hopper"}, "methods": ["bc", "iq"]}


def plan(base: Path = Path("/nowhere"), **changes) -> Plan:
    return Plan.of(ResultsTable.parse(SMALL | changes, base))


def refused(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(**changes)
    return str(caught.value)


def test_smallest_table_crosses_methods_and_datasets():
    """The smallest table is every method on every dataset once."""
    assert list(plan().runs) == ["hop-bc-allx1-seed0", "hop-iq-allx1-seed0"]


def test_a_table_is_the_product_of_its_axes():
    runs = plan(
        datasets={"hop": "a", "ant": {"dataset": "b", "demos": [5], "supplementary": ["c", "d"]}},
        demos=[1, "all"],
        subsample=[1, 20],
        overrides={"": {}, "wide": {"set": {"hidden_sizes": [64]}}},
        seeds="0-2",
    ).runs
    assert len(runs) == 2 * 2 * 2 * 2 * 3 + 1 * 2 * 2 * 2 * 3
    run = runs["ant-iq-5x20-wide-seed2"]
    assert run.supplementary_datasets == ("c", "d")
    assert run.options == [
        *("--method", "iq", "--seed", "2", "--subsample", "20", "--demos", "5", "--set", "hidden_sizes=[64]")
    ]


def test_where_subsampling_starts_is_told_to_training():
    run = plan(subsample=20, subsample_from="random").runs["hop-iq-allx20-seed0"]
    assert run.options == ["--method", "iq", "--seed", "0", "--subsample", "20", "--subsample-from", "random"]


def test_named_supplementary_data_are_an_axis():
    """Supplementary data are an axis where they have names."""
    runs = plan(supplementary={"alone": [], "mixed": ["x", "y"]}, methods=["iq"]).runs
    assert {name: run.supplementary_datasets for name, run in runs.items()} == {
        "hop-iq-allx1-alone-seed0": (),
        "hop-iq-allx1-mixed-seed0": ("x", "y"),
    }


def test_what_is_nearer_to_a_run_counts():
    runs = plan(
        updates=10,
        preset="quick",
        methods={"iq": {"set": {"gamma": 0.9}}, "warm": {"method": "iq", "updates": 20}},
        overrides={"": {"set": {"batch_size": 8}}},
        seeds=[0, 1],
        per_run=[{"where": {"method": "warm", "seed": 1}, "updates": 30, "set": {"batch_size": 4, "temperature": 2.0}}],
    ).runs
    told = {name: (run.updates, run.settings) for name, run in runs.items()}
    assert told == {
        "hop-iq-allx1-seed0": (10, ("gamma=0.9", "batch_size=8")),
        "hop-iq-allx1-seed1": (10, ("gamma=0.9", "batch_size=8")),
        "hop-warm-allx1-seed0": (20, ("batch_size=8",)),
        "hop-warm-allx1-seed1": (30, ("batch_size=4", "temperature=2.0")),
    }
    assert {run.preset for run in runs.values()} == {"quick"}


def test_nearer_number_of_updates_counts():
    """The nearer number of updates counts, however it is written."""
    runs = plan(
        set={"updates": 500},
        methods={"iq": {"updates": 2000}, "short": {"method": "iq", "set": {"updates": 100}}, "bc": {}},
        per_run=[{"where": {"method": "short"}, "set": {"gamma": 0.9}}],
    ).runs
    told = {run.method: (run.updates, run.settings) for run in runs.values()}
    assert told == {
        "iq": (2000, ()),
        "short": (None, ("updates=100", "gamma=0.9")),
        "bc": (None, ("updates=500",)),
    }
    (filtered,) = plan(
        methods={"filtered-bc": {"set": {"cloning.updates": 5}}}, per_run=[{"where": {"seed": 0}, "updates": 7}]
    ).runs.values()
    assert (filtered.updates, filtered.settings) == (7, ())


def test_a_run_can_be_left_out():
    assert list(plan(seeds="0-1", per_run=[{"where": {"method": "bc", "seed": "1-3"}, "skip": True}]).runs) == [
        *("hop-bc-allx1-seed0", "hop-iq-allx1-seed0", "hop-iq-allx1-seed1")
    ]


def test_longer_tables_keep_run_names():
    """A longer table keeps the run names of a shorter one."""
    short, long = plan(demos=5), plan(demos=[5, 10], subsample=[1, 20], seeds="0-4", overrides={"": {}, "w": {}})
    assert set(short.runs) < set(long.runs)


def test_only_methods_with_reward_are_asked():
    """Only methods that learn a reward are asked for one."""
    found = {
        run.method: run.recovers_reward for run in plan(methods=["bc", "iq", "csil", "otr-iql", "bc-all"]).runs.values()
    }
    assert found == {"bc": False, "iq": True, "csil": True, "otr-iql": False, "bc-all": False}


def test_each_dataset_is_one_source():
    """Every dataset that is read is a source once."""
    made = plan(
        datasets={"a": {"dataset": "one", "reward_on": ["two", "three/x-v0"]}, "b": "two"}, supplementary=["three/x-v0"]
    )
    assert list(made.sources.values()) == ["one", "two", "three/x-v0"]
    assert made.source_of("two") == "b"
    assert made.rewards_on(made.runs["a-iq-allx1-seed0"]) == ("one", "two", "three/x-v0")
    assert all("/" not in name for name in made.sources)


def test_paths_are_relative_to_the_table(tmp_path):
    """Paths are relative to the table's own folder."""
    (tmp_path / "x.hdf5").touch()
    assert plan(tmp_path, datasets={"x": "x.hdf5", "id": "demo/x"}).sources == {
        "x": str(tmp_path / "x.hdf5"),
        "id": "demo/x",
    }
    assert plan(tmp_path, datasets={"x": "{data}/x.hdf5"}, data=str(tmp_path)).sources["x"] == str(tmp_path / "x.hdf5")


MISTAKES = {
    "unknown key": ({"seed": 1}, "unknown key 'seed' in the table", "seeds"),
    "unknown key of a dataset": (
        {"datasets": {"hop": {"dataset": "x", "demo": 1}}},
        "unknown key 'datasets.hop.demo'",
        "demos",
    ),
    "unknown key of a method": ({"methods": {"iq": {"update": 1}}}, "unknown key 'methods.iq.update'", "updates"),
    "unknown method": ({"methods": ["iqq"]}, "unknown method 'iqq'", "iq"),
    "no such setting": (
        {"set": {"temprature": 1}, "methods": ["iq"]},
        "method iq has no setting 'temprature'",
        "temperature",
    ),
    "a setting of one method only": ({"set": {"temperature": 1}}, "method bc has no setting", "under `methods`"),
    "updates twice in one place": (
        {"updates": 5, "set": {"updates": 6}},
        "hop-bc-allx1-seed0: `updates` and `set: updates` stand side by side",
        "leave one of them out",
    ),
    "no dataset": ({"datasets": {}}, "'datasets' of the table does not fit", "keys"),
    "no demonstrations": ({"demos": 0}, "'demos.0", "keys"),
    "seeds that are none": ({"seeds": "0..4"}, "'seeds.0' of the table does not fit", "keys"),
    "a label that is a path": ({"datasets": {"a/b": "x"}}, "'datasets.a/b", "keys"),
    "per_run that meets nothing": ({"per_run": [{"where": {"seed": 9}}]}, "meets no run", "where"),
    "unknown key of where": ({"per_run": [{"where": {"seeds": 9}}]}, "unknown key 'per_run.0.where.seeds'", "seed"),
    "where without a value": (
        {"per_run": [{"where": {"supplementary": None}, "skip": True}]},
        "'per_run.0.where' of the table does not fit: Value error, 'supplementary' names nothing; leave it out",
        "keys",
    ),
    "no run left": ({"per_run": [{"where": {"seed": 0}, "skip": True}]}, "has no run left", "skip fewer"),
    "two runs of one name": ({"seeds": [0, 0]}, "two runs of table t are called hop-bc-allx1-seed0", "rename"),
    "a folder that is not named": ({"datasets": {"x": "{data}/x"}}, "names no folder yet", "--data FOLDER"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_misfitting_table_is_refused_by_key(mistake):
    """A table that does not fit is refused, and its key is named."""
    changes, problem, remedy = MISTAKES[mistake]
    text = refused(**changes)
    assert problem in text.splitlines()[0]
    assert remedy in text.splitlines()[1]


@pytest.mark.parametrize("text", ["a: [", "just words", "- a\n- b"])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_table(file)


@pytest.mark.slow
def test_shipped_tables_keep_their_runs():
    """The shipped tables ask for as many runs as they always asked for."""
    counts = {file.stem: len(Plan.of(load_table(file, Path("/data"))).runs) for file in SHIPPED.glob("*.yaml")}
    assert counts == {
        "demo": 12,
        "divergences": 60,
        "bc-vs-iq": 6,
        "offline-panels": 150,
        "online": 54,
        "whole-demonstrations": 48,
        "supplementary-ant": 12,
        "supplementary-discrete": 45,
        "mixture": 155,
        "atari": 54,
        "replay-kinds": 264,
        "stability": 180,
        "supplementary": 180,
        "supplementary-peers": 32,
        "supplementary-clones": 36,
        "random-start": 24,
        "recipes": 27,
        "better-than-cloning": 6825,
        "median-cloning": 36,
        "quick": 4,
        "worlds": 14,
    }
    panels = Plan.of(load_table(SHIPPED / "offline-panels.yaml", Path("/data")))
    assert {(run.dataset, run.demos, run.subsample) for run in panels.runs.values()} == {
        *(("cartpole", demos, 20) for demos in (1, 3, 7, 10, 15)),
        *((task, demos, 5) for task in ("acrobot", "lunarlander") for demos in (1, 3, 7, 10, 15)),
    }


def test_every_table_key_is_documented():
    """Every key of a table is on its page."""
    page = (SHIPPED.parent / "docs" / "reference" / "results-table.md").read_text()
    assert [key for key in ResultsTable.model_fields if f"`{key}`" not in page] == []
    example = page.split("```yaml\n")[1].split("```")[0]
    assert len(Plan.of(ResultsTable.parse(yaml.safe_load(example), Path("/nowhere"))).runs) > 1
