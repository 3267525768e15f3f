"""The encoder seam: vectors pass, pictures are taken apart in their own order, small ones too."""

import pytest
import torch

from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.algorithms.pictures import PICTURE_FEATURES, channels_first, shifted
from iq_offline.algorithms.scaling import fit_standardiser
from iq_offline.config.pictures import PictureEncoder
from iq_offline.errors import ConfigError


def test_a_vector_has_no_encoder_of_its_own():
    encoder = ObservationLayout(4).encoder()
    observations = torch.randn(3, 4)
    assert encoder(observations) is observations
    assert list(encoder.parameters()) == []


@pytest.mark.parametrize(
    ("shape", "planes"),
    [((84, 84), (1, 84, 84)), ((84, 84, 3), (3, 84, 84)), ((4, 84, 84), (4, 84, 84)), ((7, 7, 3), (3, 7, 7))],
)
def test_channels_are_the_smaller_end(shape: tuple[int, ...], planes: tuple[int, ...]):
    """Every size gives features."""
    assert channels_first(shape) == planes
    layout = ObservationLayout(2, (shape,))
    assert layout.encoder()(torch.zeros(5, layout.size)).shape == (5, 2 + PICTURE_FEATURES)


def test_either_end_of_channels_gives_same_features():
    last, first = ObservationLayout(0, ((40, 40, 3),)).encoder(), ObservationLayout(0, ((3, 40, 40),)).encoder()
    for encoder in (last, first):
        initialise(encoder, torch.Generator().manual_seed(0))
    picture = torch.rand(1, 40, 40, 3)
    torch.testing.assert_close(last(picture.flatten(1)), first(picture.permute(0, 3, 1, 2).flatten(1)))


def test_pictures_less_their_mean_are_divided_by_255():
    layout = ObservationLayout(1, ((8, 8),))
    mean = torch.linspace(0, 100, 64)
    standardiser = fit_standardiser(torch.tensor([[1.0], [3.0]]), layout, mean_pixels=mean)
    policy = DiscretePolicy(standardiser, 2, (8,), "relu", layout=layout)
    scaled = policy.standardise(torch.cat([torch.tensor([[3.0]]), torch.full((1, 64), 255.0)], dim=1))
    torch.testing.assert_close(scaled, torch.cat([torch.ones(1), 1 - mean / 255])[None])


def test_pictures_too_small_for_convolutions_are_refused():
    assert ObservationLayout(0, ((5, 5, 3),)).encoder().features > 0
    with pytest.raises(ConfigError, match="pictures of 4 x 4 pixels are too small"):
        ObservationLayout(0, ((4, 4, 3),)).encoder()


@pytest.mark.parametrize("shape", [(84, 84), (4, 84, 84), (7, 7, 3), (3, 5)])
def test_residual_encoder_takes_every_size(shape: tuple[int, ...]):
    layout = ObservationLayout(2, (shape,), encoded_by=PictureEncoder.IMPALA)
    assert layout.encoder()(torch.zeros(5, layout.size)).shape == (5, 2 + PICTURE_FEATURES)


@pytest.mark.parametrize("shape", [(2, 6, 5), (6, 5, 3), (2, 6, 5, 3)])
def test_shifts_equal_padding_and_cropping(shape: tuple[int, ...]):
    """A shift is a crop of the picture with its edge repeated; vectors, and frames of one stack, move as one."""
    layout, most = ObservationLayout(1, (shape,)), 2
    flat = torch.rand(8, layout.size)
    moved = shifted(flat, layout, most, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0], flat[:, 0])
    rows, columns = torch.randint(-most, most + 1, (2, 8, 1), generator=torch.Generator().manual_seed(0))
    assert len(set(zip(rows.flatten().tolist(), columns.flatten().tolist(), strict=True))) > 4
    row = shape.index(6)
    for n in range(8):
        picture = flat[n, 1:].reshape(shape).movedim((row, row + 1), (-2, -1)).flatten(0, -3)[None]
        padded = torch.nn.functional.pad(picture, (most,) * 4, mode="replicate")
        top, left = most + int(rows[n]), most + int(columns[n])
        expected = padded[0, :, top : top + 6, left : left + 5]
        got = moved[n, 1:].reshape(shape).movedim((row, row + 1), (-2, -1)).flatten(0, -3)
        assert torch.equal(got, expected)
