"""Pictures that are stored as JPEG, as Minari does by default."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.errors import DatasetUnreadable

LEAST_SIDE = 32


def is_encoded(space: dict[str, Any]) -> bool:
    """Whether Minari stores a space's values as JPEG: bytes from 0 to 255, at least 32 by 32."""
    shape = space.get("shape", [])
    return (
        space.get("type") == "Box"
        and space.get("dtype") == "uint8"
        and len(shape) in (2, 3)
        and min(shape[:2]) >= LEAST_SIDE
        and np.min(space.get("low", 0)) == 0
        and np.max(space.get("high", 0)) == 255
    )


def decode_jpeg(encoded: Sequence[bytes]) -> NDArray[np.uint8]:
    """Pictures, shape (n, height, width[, channels]). Raises DatasetUnreadable for what is no JPEG, or too large."""
    from PIL import Image

    pictures = []
    for data in encoded:
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                pictures.append(np.asarray(image, dtype=np.uint8))
        except (OSError, Image.DecompressionBombError) as error:
            raise DatasetUnreadable(f"a stored picture is not a JPEG ({error})", "fetch the dataset again") from None
    return np.stack(pictures)
