"""Credentials in URLs: gone from identities and messages, with all else of the URL as it was."""

import pytest

from iq_offline.config.train import TrainConfig, algorithm_config
from iq_offline.credentials import masked, public_url
from iq_offline.data.catalogue import CatalogueEntry, locate
from iq_offline.errors import ConfigError

PUBLIC = {
    "http://ann:secret@host/x.hdf5": "http://host/x.hdf5",
    "https://TOKEN@host/x.hdf5": "https://host/x.hdf5",
    "http://ann:se/c#r?et@host/x.hdf5": "http://host/x.hdf5",
    "https://host/x.hdf5?token=abc&v=2": "https://host/x.hdf5?v=2",
    "https://host/x.hdf5?accessToken=abc": "https://host/x.hdf5",
    "https://host/x?X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-Date=1&part=2": "https://host/x?part=2",
    "https://host/x.hdf5?sv=2020&se=tomorrow&sig=a%2Fb": "https://host/x.hdf5",
    "https://host/x.hdf5#access_token=abc": "https://host/x.hdf5",
    "postgresql://ann:secret@host:5432/db?sslmode=require": "postgresql://host:5432/db?sslmode=require",
    "https://host/hf_abcdefghijklmnopqrst/x.hdf5": "https://host/***/x.hdf5",
    "https://host/x.hdf5?key=abc": "https://host/x.hdf5?key=***ba7816bf",
}


@pytest.mark.parametrize(("url", "public"), PUBLIC.items())
def test_public_url_has_no_credentials(url: str, public: str):
    """Neither the user, the password nor a token is left, and a public URL is its own."""
    assert public_url(url) == public
    assert public_url(public) == public
    assert masked(f"no file at '{url}': why") == f"no file at '{public}': why"


@pytest.mark.parametrize(
    "plain",
    [
        "http://[::1]:80/x.hdf5",
        "https://host:80/a@b/x.hdf5?author=me&v=2",
        "sqlite:////a/b?token=c.db",
        "/data/x?token=3",
        "https://host/x.hdf5?commit=0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_public_urls_stay_as_they_are(plain: str):
    """What has no credentials, and what is no URL, is not changed."""
    assert public_url(plain) == plain


def test_files_apart_by_perhaps_secret_parameters():
    """A parameter that may tell one file from another never makes two URLs one."""
    assert public_url("https://host/x.hdf5?key=a") != public_url("https://host/x.hdf5?key=b")


def test_messages_hide_bare_secrets():
    """Also without their URL: a parameter, a header, or the password itself."""
    told = masked("url: /x?token=abc12 'password=hunter2' Bearer abcdef hunter22", "http://u:hunter22@host/x")
    assert told == "url: /x?token=*** 'password=***' Bearer *** ***"
    assert str(ConfigError("http://a:b@c/d", "use http://a:b@c/e")) == "http://c/d\n  -> use http://c/e"


def test_dataset_is_found_without_its_credentials():
    """The place in the store is the same with a password, with another, and with none."""
    urls = ("http://ann:one@host/x.hdf5?token=1", "http://ben:two@host/x.hdf5?token=2", "http://host/x.hdf5")
    found = [locate(url) for url in urls]
    assert all(isinstance(entry, CatalogueEntry) for entry in found)
    assert len({entry.id for entry in found if isinstance(entry, CatalogueEntry)}) == 1
    assert [entry.urls[0] for entry in found if isinstance(entry, CatalogueEntry)] == list(urls)


def test_configuration_holds_no_credentials():
    """Of the demonstrations and of supplementary data."""
    config = TrainConfig(
        dataset="http://ann:secret@host/x.hdf5",
        method="bc",
        supplementary=("https://host/y.hdf5?token=secret",),
        algorithm=algorithm_config("bc", discrete=False),
    )
    assert (config.dataset, config.supplementary) == ("http://host/x.hdf5", ("https://host/y.hdf5",))
    assert "secret" not in config.to_toml()
