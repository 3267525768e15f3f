"""An exported policy is the original: every head, every format, any batch, pictures too."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Policy, Standardiser
from iq_offline.algorithms.scaling import fit_standardiser
from iq_offline.config.base import ActionHead, Activation
from iq_offline.errors import ConfigError, RunError
from iq_offline.export.check import TOLERANCE, compare, random_observations
from iq_offline.export.formats import Format, codec, format_of

SCALE = ActionScale.of_bounds([-1.0, 0.0], [1.0, 40.0])


def scaling(layout: ObservationLayout) -> Standardiser:
    numbers = torch.arange(layout.vector).float()
    return fit_standardiser(torch.stack([numbers - 1, numbers + 2]), layout)


def built(kind: str) -> Policy:
    """A policy with weights large enough for its actions to reach the bounds."""
    layout = ObservationLayout(3, ((8, 8, 3),) if kind == "pictures" else ())
    if kind in ("categorical", "pictures"):
        policy: Policy = DiscretePolicy(scaling(layout), 4, (16,), Activation.RELU, norm=True, layout=layout)
    else:
        learnt = kind == ActionHead.TANH_GAUSSIAN
        policy = ContinuousPolicy(
            scaling(layout), SCALE, (16,), Activation.TANH, head=ActionHead(kind), learnt_std=learnt, layout=layout
        )
    initialise(policy, torch.Generator().manual_seed(0))
    if isinstance(policy, ContinuousPolicy):
        policy.network[-1].weight.data *= 10
    return policy.eval().requires_grad_(False)


KINDS = [*ActionHead, "categorical", "pictures"]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        pytest.param(form, kind, marks=pytest.mark.slow if form is Format.ONNX and kind != KINDS[0] else ())
        for form in Format
        for kind in KINDS
    ],
)
def test_an_exported_policy_gives_the_originals_actions(kind: str, form: Format):
    if form is Format.ONNX:
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    policy, chosen = built(kind), codec(form)
    act = chosen.run(chosen.write(policy, {"run": "a run", "observation_numbers": 3}))
    agreement = compare(policy, act, random_observations(policy))
    assert agreement <= TOLERANCE * 40


def test_actions_leave_an_exported_policy_scaled_and_clipped():
    policy, chosen = built("clipped-gaussian"), codec(Format.TORCHSCRIPT)
    act = chosen.run(chosen.write(policy, {}))
    far = np.float32([[1e6, -1e6, 1e6], [-1e6, 1e6, -1e6]])
    assert sorted(act(far)[:, 1].tolist()) == [0.0, 40.0]


def test_a_policy_whose_actions_differ_is_refused():
    policy = built("clipped-gaussian")
    near = lambda seen: policy.act(torch.from_numpy(seen)).numpy() + np.float32(1e-3)  # noqa: E731
    with pytest.raises(RunError, match=r"differ from the original's by 0\.001"):
        compare(policy, near, random_observations(policy))


def test_a_policy_of_another_kind_is_refused():
    policy = built("categorical")
    with pytest.raises(RunError, match=r"float32 \(256, 1\), the original int64 \(256,\)"):
        compare(policy, lambda seen: np.zeros((len(seen), 1), dtype=np.float32), random_observations(policy))


def test_lower_rated_action_is_refused():
    """An action that the original rates lower is refused and a tie is not."""
    policy, seen = built("categorical"), random_observations(built("categorical"))
    worst = lambda batch: policy(torch.from_numpy(batch)).argmin(dim=-1).numpy()  # noqa: E731
    with pytest.raises(RunError, match="differ"):
        compare(policy, worst, seen)
    policy.network[-1].weight.zero_()
    policy.network[-1].bias.zero_()
    assert compare(policy, lambda batch: np.full(len(batch), 3), seen) == 0


def test_suffix_names_the_format(tmp_path):
    """The suffix names the format unless one is given."""
    assert format_of(tmp_path / "policy.onnx", None) is Format.ONNX
    assert format_of(tmp_path / "policy.pt", None) is Format.TORCHSCRIPT
    assert format_of(tmp_path / "policy.pt2", None) is Format.TORCH_EXPORT
    assert format_of(tmp_path / "policy.onnx", "torchscript") is Format.TORCHSCRIPT
    with pytest.raises(ConfigError, match=r"no format has the suffix '\.bin'"):
        format_of(tmp_path / "policy.bin", None)
    with pytest.raises(ConfigError, match="unknown format 'onx'"):
        format_of(tmp_path / "policy.onnx", "onx")
