"""What each file of a run folder must hold. Keys beyond those named here are allowed: a later version may add some."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**62)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Episodes = Annotated[list[Count], Field(max_length=10_000_000)]
FORMAT_VERSION = 2
"""Of a run folder; it grows where a file of it means something else than before, and other numbers are refused."""
Model = TypeVar("Model", bound=BaseModel)


class Record(BaseModel):
    """A JSON file of a run folder."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class DatasetRecord(Record):
    """The demonstrations that a run learnt from."""

    name: str
    sha256: Sha256
    path: str | None
    origin_sha256: Sha256 | None
    env_id: str | None
    env_kwargs: dict[str, Any]
    reference: Annotated[list[Any], Field(min_length=3, max_length=3)] | None
    episodes: Count
    steps: Count
    return_mean: Number | None
    longest_episode: Count | None = None

    @model_validator(mode="after")
    def _reference_fits(self) -> Self:
        if self.reference and not (
            isinstance(self.reference[0], str) and all(isinstance(one, int | float) for one in self.reference[1:])
        ):
            raise ValueError("reference is not a name and two numbers")
        return self


class Manifest(Record):
    """`manifest.json`: what was trained, from what, with what."""

    format_version: Literal[2]

    run: Annotated[str, Field(min_length=1)]
    method: str
    seed: Count
    demos: Annotated[int, Field(ge=1)] | None
    subsample: Annotated[int, Field(ge=1)]
    transitions: Count
    updates: Count
    environment_steps: Count = 0
    dataset: DatasetRecord
    config_hash: str
    policy_sha256: Sha256
    checkpoint_sha256: Sha256
    packages: dict[str, str]
    git_commit: str | None = None
    device: str
    threads: Annotated[int, Field(ge=1)]
    group: str
    algorithm: dict[str, Any]
    started: str
    seconds: Annotated[Number, Field(ge=0)]
    compiled: bool = False
    prior_compiled: bool | None = None
    together: Annotated[int, Field(ge=1)] | None = None
    files: dict[str, Sha256] = {}

    @model_validator(mode="after")
    def _started_is_a_time(self) -> Self:
        datetime.fromisoformat(self.started)
        return self


class SupplementaryRecord(Record):
    """One supplementary dataset of a run."""

    dataset: str
    sha256: Sha256
    origin_sha256: Sha256 | None = None
    episodes: Count
    transitions: Count
    accepted_episodes: Episodes = []


class SplitRecord(Record):
    """`split.json`: which episodes and transitions were learnt from."""

    dataset: str
    dataset_sha256: Sha256
    select: Literal["random", "top"] = "random"
    rewards_read: bool = False
    expert_episodes: Annotated[Episodes, Field(min_length=1)]
    subsample: Annotated[int, Field(ge=1)] = 1
    subsample_from: Literal["first", "random"] = "first"
    transitions: Annotated[int, Field(ge=1)]
    rows_sha256: Sha256 | None = None
    held_out_episodes: Episodes
    supplementary: list[SupplementaryRecord]

    @model_validator(mode="after")
    def _episodes_are_named_once(self) -> Self:
        named = [*self.expert_episodes, *self.held_out_episodes]
        if len(set(named)) < len(named):
            raise ValueError("an episode is named twice")
        return self


class EvaluationRecord(Record):
    """`evaluation.json`: the summary of simulated episodes."""

    run: str
    method: str
    dataset: str
    seed: Count
    episodes: Annotated[int, Field(ge=1)]
    return_mean: Number
    return_std: Annotated[Number, Field(ge=0)]
    length_mean: Annotated[Number, Field(ge=0)]
    score: Number | None = None
    reference: str | None = None
    env_id: str | None = None
    env_kwargs: dict[str, Any] | None = None
    dataset_return_mean: Number | None = None
    files: dict[str, Sha256] = {}


class CorrelationRecord(Record):
    """Correlations over `n` pairs; None where there is none."""

    pearson: Annotated[Number, Field(ge=-1.001, le=1.001)] | None
    spearman: Annotated[Number, Field(ge=-1.001, le=1.001)] | None
    n: Count


class RewardRecord(Record):
    """`reward.json`: recovered against true reward."""

    transition: CorrelationRecord
    episode: CorrelationRecord
    within_source: CorrelationRecord
    null_length: CorrelationRecord
    null_bc: CorrelationRecord
    form: str | None = None
    files: dict[str, Sha256] = {}


class RewardModelRecord(Record):
    """`reward_model.json`: how well the explicit reward fits."""

    run: str
    inputs: Literal["s", "sa", "sas"]
    form: str
    updates: Count
    files: dict[str, Sha256] = {}


class TrackingRecord(Record):
    """`tracking.json`: where MLflow mirrors the run."""

    uri: str
    experiment_id: str
    run_id: Annotated[str, Field(pattern=r"^[\w-]+$")]
    parent_run_id: Annotated[str, Field(pattern=r"^[\w-]+$")]


def fitted(model: type[Model], content: Any) -> Model:
    """The content as that model. Raises ValueError that names the first key which does not fit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        raise ValueError(f"{key + ': ' if key else ''}{said[:300]}") from None
    except (RecursionError, OverflowError):
        raise ValueError("holds numbers or levels out of range") from None
