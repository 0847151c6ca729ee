"""ROAD's imputation against pytorch-grad-cam 1.5.7, whose system is solved directly."""

import numpy as np
import pytest
import torch

from camcli.metrics import imputation

road = pytest.importorskip("pytorch_grad_cam.metrics.road")


# It calls NumPy's functions on tensors.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ragged", [True, False])
def test_imputation_is_that_of_another_library(share: float, ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:29, :34]
    image = rng.normal(size=(3, 29, 34)).astype(np.float32)
    order = rng.random((29, 34)) if ragged else np.hypot(down - 9, across - 20)
    removed = order < np.quantile(order, share)
    theirs = road.NoisyLinearImputer(noise=0)(torch.from_numpy(image), torch.from_numpy(1.0 - removed)).numpy()
    ours = imputation.impute(image, removed, np.zeros_like(image))
    # The errors that are left are below those of the noise that is added, whose deviation is 0.01.
    assert np.sqrt(((ours - theirs) ** 2).mean()) < 0.01
    monkeypatch.setattr(imputation, "TOLERANCE", 1e-6)
    monkeypatch.setattr(imputation, "MAX_CYCLES", 40)
    # In single precision, where theirs is solved in double.
    np.testing.assert_allclose(imputation.impute(image, removed, np.zeros_like(image)), theirs, atol=1e-4)
