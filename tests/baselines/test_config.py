"""Settings of the peers: names, bounds, and defaults that are those of the methods."""

import pytest
from pydantic import TypeAdapter, ValidationError

from iq_offline.config.baselines import (
    BaselineConfig,
    ContinuousFilteredBCConfig,
    DiscreteWeightedBCConfig,
    OTRConfig,
    RewardLabelledConfig,
)
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig


def test_configurations_have_own_names_and_round_trip():
    """Every configuration has a name of its own and comes back from json."""
    adapter = TypeAdapter(BaselineConfig)
    made = [RewardLabelledConfig(), ContinuousFilteredBCConfig(), DiscreteWeightedBCConfig()]
    assert [adapter.validate_python(config.model_dump(mode="json")) for config in made] == made
    assert len({config.name for config in made}) == 3


def test_cloning_defaults_are_those_of_bc():
    assert ContinuousFilteredBCConfig().cloning == ContinuousBCConfig()
    assert DiscreteWeightedBCConfig().cloning == DiscreteBCConfig()


@pytest.mark.parametrize(
    "settings", [{"expert_share": 0}, {"expert_share": 1}, {"hidden_sizes": ()}, {"labler": "uds"}]
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValidationError):
        RewardLabelledConfig.model_validate(settings)


def test_too_small_regularisation_of_transport_is_refused():
    """Transport is not regularised so little that plans vanish."""
    with pytest.raises(ValidationError):
        OTRConfig(regularisation=1e-4)
