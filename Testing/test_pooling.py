"""What a loss takes from the other samples of a step: as if they were all one batch, and nothing outside of a step."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from DEMISTCore import pooling
from DEMISTCore.losses import Align, dice_loss, known_mean
from DEMISTCore.pooling import Step


def averaged(loss, batches, rehearse=None):
    """Loss and gradient of ``weight`` as the training loop makes them of micro-batches."""
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    step = Step(len(batches), 1)
    if len(batches) > 1:
        for batch in batches:
            with step.rehearsal(), torch.no_grad():
                (rehearse or loss)(weight, batch)
    total = 0.0
    for i, batch in enumerate(batches):
        with step.micro_batch(i):
            value = loss(weight, batch) / len(batches)
        value.backward()
        total += float(value.detach())
    return total, weight.grad


def scaled(weight, x):
    return x * weight.view(1, 3, 1, 1, 1)


def dice(weight, x):
    return dice_loss(scaled(weight, x).sigmoid(), (x > 0.3).double())


def quotient(weight, x):
    return known_mean(scaled(weight, x).square(), x[:, :1].abs())


def spread(weight, x):
    return scaled(weight, x).mean() * pooling.deviation(scaled(weight, x).detach())


def contrast(weight, x):
    align = Align(3, 3, width=4, positions=5).double()
    for i, parameter in enumerate(align.parameters()):
        parameter.data = torch.linspace(-1 - i, 1, parameter.numel(), dtype=torch.float64).sin().view(parameter.shape)
    z = scaled(weight, x)
    places = x.abs().sum((1, 2, 3, 4)).round() % 7  # of each sample, of some none
    mask = torch.arange(8).view(1, 1, 2, 2, 2) < places.view(-1, 1, 1, 1, 1)
    generators = [torch.Generator().manual_seed(int(each.abs().sum() * 1e6)) for each in x]
    return align(z, z.flip(1) + 0.1 * z.square(), mask, generators)


def samples(count: int = 8) -> torch.Tensor:
    """(count, 3, 2, 2, 2), of which the first three are empty."""
    x = torch.randn(count, 3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:3] = 0
    return x


@pytest.mark.parametrize("loss", [dice, quotient, spread, contrast])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_are_one_batch(loss, size, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    whole, gradient = averaged(loss, [samples()])
    parts, same = averaged(loss, list(samples().split(size)))
    assert gradient.abs().min() > 1e-6
    assert parts == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(same, gradient, rtol=1e-10, atol=1e-12)


def test_alone_they_are_the_usual_ones():
    x = samples().float()
    assert pooling.rows(x) is x
    assert pooling.count(x.sum() * 0) == 1
    torch.testing.assert_close(pooling.deviation(x), x.std())
    usual = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)
    found, true = x[:, :1].sigmoid(), (x[:, 1:2] > 0).float()
    torch.testing.assert_close(dice_loss(found, true), usual(found, true))


def test_what_was_not_rehearsed_is_a_fault():
    with pytest.raises(RuntimeError, match="asks for more of the other samples than its objective has rehearsed"):
        averaged(dice, list(samples().split(4)), rehearse=lambda weight, batch: None)
    with pytest.raises(RuntimeError, match=r"\(1, 2\) was rehearsed as \(3,\)"):
        averaged(dice, list(samples().split(4)), rehearse=lambda weight, batch: pooling.rows(weight))


def test_outside_of_a_step_nothing_is_shared():
    step = Step(2, 1)
    with step.rehearsal():
        pooling.rows(torch.ones(1))
    assert len(pooling.rows(torch.ones(1))) == 1
    with pytest.raises(ZeroDivisionError), step.micro_batch(0):
        _ = 1 / 0
    assert len(pooling.rows(torch.ones(1))) == 1
