"""What is added to a foreign layout so that nothing is lost: JSON in an array of bytes that it does not look at."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from iq_offline.data.episodes import DatasetInfo
from iq_offline.errors import DatasetUnreadable


class About(BaseModel):
    """The dataset's own words, and what its episodes have beyond the foreign layout, one entry an episode."""

    model_config = ConfigDict(frozen=True, strict=True)

    env_id: str | None = None
    env_kwargs: dict[str, Any] = {}
    description: str = ""
    origin_sha256: str | None = None
    seeds: list[int | None] = []
    truncated: list[bool] = []
    successor_known: list[bool] = []
    paths: list[str] = []
    """Names of the observations' arrays."""

    def info(self, path: Path, name: str, layout: str, notes: tuple[str, ...] = ()) -> DatasetInfo:
        """The dataset as its source describes it."""
        own = {key: getattr(self, key) for key in ("env_id", "env_kwargs", "description", "origin_sha256")}
        return DatasetInfo(name=name, path=str(path), format=layout, notes=notes, **own)


def encode(info: DatasetInfo, **episodes: list[Any]) -> NDArray[np.uint8]:
    """The bytes for a dataset, and of its episodes the lists that the foreign layout has no place for."""
    about = About(
        env_id=info.env_id,
        env_kwargs=info.env_kwargs,
        description=info.description,
        origin_sha256=info.origin,
        **episodes,
    )
    return np.frombuffer(about.model_dump_json().encode(), dtype=np.uint8)


def decode(content: NDArray[Any], path: Path) -> About:
    """What `encode` made. Raises DatasetUnreadable where it did not."""
    try:
        return About.model_validate_json(content.tobytes())
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        raise DatasetUnreadable(f"{path}: in its 'about', {place}: {fault['msg'][:200]}", "leave 'about' out") from None
