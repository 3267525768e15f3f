"""fetch: a dataset's name to its data on this machine, verified."""

from iq_offline.data.catalogue import Located
from iq_offline.data.download import FetchOptions, fetch
from iq_offline.data.reading import read_episodes
from iq_offline.data.table import TransitionTable, open_table


def fetch_dataset(dataset: str, options: FetchOptions | None = None) -> Located:
    """Fetch and verify; a path is opened, so that a file which is not a dataset is refused here.

    Raises UnknownDataset, DownloadFailed, DatasetUnreadable, ConfigError.
    """
    located = fetch(dataset, options)
    if located.entry is None:
        read_episodes(located)
    return located


def open_dataset(dataset: str) -> TransitionTable:
    """The training table of a dataset, fetched and packed first if need be.

    Raises UnknownDataset, DownloadFailed, DatasetUnreadable, InvalidEpisode.
    """
    return open_table(fetch(dataset))
