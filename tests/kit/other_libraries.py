"""Libraries to compare numbers with that are no dependency; what imports this is skipped without them."""

import pytest

HOW = "compares with pytorch-grad-cam and torchcam; CONTRIBUTING.md says how to install them"

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason=HOW)
torchcam = pytest.importorskip("torchcam.methods", reason=HOW)
FACTORIZATION = "pytorch_grad_cam.feature_factorization.deep_feature_factorization"
their_dff = pytest.importorskip(FACTORIZATION, reason=HOW).dff
