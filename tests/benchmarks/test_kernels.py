"""The count of a step's operations: what is counted by hand, and that the branches of a GPU are those counted."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks import kernels
from galaxies.measure import source
from galaxies.networks.layers import ThinConv2d


def counted(work) -> dict[str, int]:
    with kernels.Operations() as operations:
        work()
    return dict(operations.counts)


def test_views_start_no_kernel():
    x = torch.ones(2, 4)
    assert counted(lambda: (x.view(4, 2).t()[0], x.detach(), x.split(2), torch.empty(3))) == {}


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("casts", lambda x: x.bfloat16()),
        ("copies", lambda x: torch.cat([x, x])),
        ("copies", lambda x: x.clone()),
        ("reductions", lambda x: x.sum(0)),
        ("element-wise", lambda x: x * 2),
        ("element-wise", lambda x: torch.maximum(x, x)),
        ("element-wise", lambda x: x.relu_()),
        ("products", lambda x: x @ x.t()),
        ("fills", lambda x: torch.zeros(3)),
        ("random", lambda x: torch.randn(3)),
        ("lists of tensors", lambda x: torch._foreach_mul_([x, x], 2.0)),
        ("resampling", lambda x: nn.functional.max_pool2d(x[None, None], 2)),
    ],
)
def test_each_operation_has_a_kind(kind, work):
    x = torch.ones(4, 4)
    assert counted(lambda: work(x)) == {kind: 1}


def test_a_layer_by_hand():
    layer, images = nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)
    # The convolution, its bias, the sum; a gradient of ones, spread by a view; the gradients of weight and bias.
    expected = {"products": 2, "element-wise": 1, "reductions": 2, "fills": 1}
    assert counted(lambda: layer(images).sum().backward()) == expected
    images.requires_grad_()
    assert counted(lambda: layer(images).sum())["products"] == 1
    layer.zero_grad(set_to_none=True)
    assert counted(lambda: layer(images).sum().backward())["products"] == 3


def test_the_branches_of_a_gpu_are_taken_and_then_no_longer():
    layer = nn.Sequential(ThinConv2d(4, 3, 3))
    planes = torch.rand(1, 8, 8)
    before = counted(lambda: source.dilate(planes))
    with kernels.as_on_cuda():
        assert counted(lambda: source.dilate(planes)) == {"resampling": 1}
        assert counted(lambda: layer(torch.ones(1, 4, 8, 8)))["copies"] == 2  # eights of the maps and of the weights
    assert counted(lambda: source.dilate(planes)) == before


def test_the_script(capsys):
    options = ["--width", "4", "--batch-size", "4", "--precision", "bf16", "--recipe", "paper", "--names"]
    kernels.main(options)
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["generator"]["all"] > facts["predictor"]["all"] > 50
    for phase in ("predictor", "generator"):
        kinds = dict(facts[phase])
        assert kinds.pop("all") == pytest.approx(sum(kinds.values()))
        assert {"casts", "products", "element-wise", "reductions", "lists of tensors"} <= set(kinds)
        assert facts[f"{phase}_names"]["lists of tensors _fused_adam_"] == (1 if phase == "predictor" else 2)
