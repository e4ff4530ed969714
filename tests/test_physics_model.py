"""The physics loss: the predictor's sizes, dropout and uncertainty, masking of unknown values, and photometry."""

import pytest
import torch

from config_physics import attribute_table
from galaxies.measure import photometry
from physics_model import PhysicsPredictor, photometric_loss, physics_loss, variance_loss


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The predictor


def test_parameters():
    # 3 x 3 convolutions    3 x  64 x 9 +  64 =   1,792
    #                      64 x 128 x 9 + 128 =  73,856
    #                     128 x 256 x 9 + 256 = 295,168
    # BatchNorm           2 x (64 + 128 + 256) =     896
    # Linear               256 x 256 + 256     =  65,792
    #                      256 x   4 +   4     =   1,028
    assert sum(parameter.numel() for parameter in PhysicsPredictor(4).parameters()) == 438_532


@pytest.mark.parametrize("num_attributes", [1, 3, 7])
def test_each_attribute_adds_its_weights(num_attributes):
    count = sum(parameter.numel() for parameter in PhysicsPredictor(num_attributes).parameters())
    assert count == 438_532 + (num_attributes - 4) * 257


@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes(size):
    torch.manual_seed(0)
    predictor = PhysicsPredictor(5, width=4).eval()
    predicted = predictor(random(2, 3, size, size).clamp(-1, 1))
    assert predicted.shape == (2, 5)
    assert predicted.dtype == torch.float32
    assert torch.isfinite(predicted).all()


def test_values_beyond_the_unit_range_can_be_predicted():
    # Colours and masses outside the sliders' range are values like others, so no output layer may bound them.
    torch.manual_seed(0)
    predictor = PhysicsPredictor(4, width=4).eval()
    (last,) = [module for module in predictor.modules() if isinstance(module, torch.nn.Linear)][-1:]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([-3.0, 4.0, 0.5, 7.0]))
        last.weight.zero_()
    torch.testing.assert_close(predictor(random(1, 3, 64, 64)), torch.tensor([[-3.0, 4.0, 0.5, 7.0]]))


def test_different_images_get_different_predictions():
    torch.manual_seed(0)
    predicted = PhysicsPredictor(4, width=8).eval()(
        random(2, 3, 64, 64) * torch.tensor([0.1, 1.0])[:, None, None, None]
    )
    assert (predicted[0] - predicted[1]).abs().min() > 1e-5


def test_each_image_is_judged_alone_when_evaluating():
    torch.manual_seed(0)
    predictor, images = PhysicsPredictor(4, width=8).eval(), random(3, 3, 64, 64)
    together = predictor(images)
    for i in range(3):
        torch.testing.assert_close(predictor(images[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    predictor, images = PhysicsPredictor(4, width=8, dropout=0.5), random(4, 3, 64, 64)
    assert not torch.equal(predictor(images), predictor(images))
    predictor.eval()
    assert torch.equal(predictor(images), predictor(images))


def test_no_dropout():
    torch.manual_seed(0)
    predictor, images = PhysicsPredictor(4, width=8, dropout=0.0), random(4, 3, 64, 64)
    # In training mode BatchNorm uses the batch, which is the same both times.
    assert torch.equal(predictor(images), predictor(images))


def test_gradients_reach_the_images_through_a_frozen_predictor():
    torch.manual_seed(0)
    predictor = PhysicsPredictor(4, width=8).eval().requires_grad_(False)
    images = random(2, 3, 64, 64).requires_grad_()
    loss, _, _ = physics_loss(predictor(images), torch.full((2, 4), 0.5), torch.ones(2, 4))
    loss.backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad.abs().amax((1, 2, 3)) > 0).all()


# The loss


def test_everything_known_is_plain_mse():
    predicted, requested = random(6, 4), random(6, 4, seed=1)
    loss, squared_errors, counts = physics_loss(predicted, requested, torch.ones(6, 4))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(predicted, requested), rtol=1e-6, atol=0)
    assert loss.shape == ()
    torch.testing.assert_close(squared_errors, ((predicted - requested) ** 2).sum(0), rtol=1e-6, atol=0)
    assert counts.tolist() == [6, 6, 6, 6]


def test_known_answer():
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    requested = torch.tensor([[0.0, 2.5], [1.0, 0.0], [5.0, 9.0]])
    known = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    loss, squared_errors, counts = physics_loss(predicted, requested, known)
    # 1 and 4 in the first column, 0.25 and 9 in the second: four known values.
    assert loss.item() == pytest.approx(14.25 / 4)
    assert squared_errors.tolist() == pytest.approx([5.0, 9.25])
    assert counts.tolist() == [2, 2]


def test_sums_and_counts_make_the_loss():
    known = (random(50, 4, seed=2) > 0.3).float()
    loss, squared_errors, counts = physics_loss(random(50, 4), random(50, 4, seed=1), known)
    assert counts.tolist() == known.sum(0).tolist()
    assert loss.item() == pytest.approx((squared_errors.sum() / counts.sum()).item(), rel=1e-5)


@pytest.mark.parametrize("other", [0.0, 17.0, -1e6])
def test_masked_values_change_nothing(other):
    predicted, requested = random(5, 4), random(5, 4, seed=1)
    known = torch.ones(5, 4)
    known[1, 2] = known[4, 0] = 0
    expected = physics_loss(predicted, requested, known)
    moved_prediction, moved_request = predicted.clone(), requested.clone()
    for moved in (moved_prediction, moved_request):
        moved[1, 2] = moved[4, 0] = other
    for got in (physics_loss(moved_prediction, requested, known), physics_loss(predicted, moved_request, known)):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_masked_values_get_no_gradient():
    predicted = random(5, 4).requires_grad_()
    known = torch.ones(5, 4)
    known[1, 2] = known[4, 0] = 0
    loss, squared_errors, _ = physics_loss(predicted, random(5, 4, seed=1), known)
    assert not squared_errors.requires_grad
    loss.backward()
    assert predicted.grad[1, 2] == 0
    assert predicted.grad[4, 0] == 0
    assert (predicted.grad != 0).sum() == 18
    # d/dx of a mean of 18 squares.
    expected = 2 * (predicted.detach() - random(5, 4, seed=1)) * known / 18
    torch.testing.assert_close(predicted.grad, expected)


def test_nothing_known():
    predicted = random(5, 4).requires_grad_()
    loss, squared_errors, counts = physics_loss(predicted, random(5, 4, seed=1), torch.zeros(5, 4))
    loss.backward()
    assert loss.item() == 0
    assert squared_errors.tolist() == [0] * 4
    assert counts.tolist() == [0] * 4
    assert predicted.grad.abs().max() == 0


def test_perfect_predictions():
    predicted = random(5, 4).requires_grad_()
    loss, squared_errors, _ = physics_loss(predicted, predicted.detach().clone(), torch.ones(5, 4))
    loss.backward()
    assert loss.item() == 0
    assert squared_errors.abs().max() == 0
    assert predicted.grad.abs().max() == 0


def test_an_attribute_that_nobody_knows_leaves_the_others_alone():
    predicted, requested, known = random(5, 4), random(5, 4, seed=1), torch.ones(5, 4)
    known[:, 3] = 0
    loss, squared_errors, counts = physics_loss(predicted, requested, known)
    expected = torch.nn.functional.mse_loss(predicted[:, :3], requested[:, :3])
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert squared_errors[3] == 0
    assert counts[3] == 0


def test_learns_the_brightness_of_flat_images():
    torch.manual_seed(0)
    predictor = PhysicsPredictor(1, width=4, dropout=0.0)
    optimizer = torch.optim.Adam(predictor.parameters(), 0.01)
    levels = torch.linspace(0, 1, 16)[:, None]
    images = (2 * levels - 1)[:, :, None, None].expand(16, 3, 8, 8)
    losses = []
    for _ in range(40):
        loss, _, _ = physics_loss(predictor(images), levels, torch.ones(16, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The variance of the levels, 0.09, is what a constant prediction pays.
    assert losses[-1] < 0.01


# Uncertainty


def test_uncertainty_leaves_the_prediction_alone():
    plain, doubting = PhysicsPredictor(3, width=8), PhysicsPredictor(3, width=8, uncertainty=True)
    doubting.load_state_dict(plain.state_dict(), strict=False)
    images = random(4, 3, 64, 64)
    for predictor in (plain, doubting):
        predictor.eval()
    mean, log_variance = doubting.distribution(images)
    torch.testing.assert_close(mean, plain(images))
    torch.testing.assert_close(doubting(images), plain(images))
    assert log_variance.shape == (4, 3)
    assert plain.distribution(images)[1] is None
    # And no gradient of the variance reaches the layers that predict.
    variance_loss(mean, log_variance, torch.zeros(4, 3), torch.ones(4, 3)).backward()
    for name, parameter in doubting.named_parameters():
        assert (parameter.grad is not None) == name.startswith("doubt"), name


def test_variance_loss_is_the_gaussian_likelihood():
    predicted, requested, variance = random(5, 3), random(5, 3, seed=1), random(5, 3, seed=2).square() + 0.1
    expected = torch.nn.GaussianNLLLoss()(predicted, requested, variance)
    found = variance_loss(predicted, variance.log(), requested, torch.ones(5, 3))
    torch.testing.assert_close(found, expected)
    # Values that are not known take no part.
    known = torch.ones(5, 3)
    known[0] = 0
    requested[0] = 1e6
    torch.testing.assert_close(
        variance_loss(predicted, variance.log(), requested, known),
        torch.nn.GaussianNLLLoss()(predicted[1:], requested[1:], variance[1:]),
    )


def test_variance_that_minimises_the_loss_is_the_mean_squared_error():
    log_variance = torch.zeros(1, requires_grad=True)
    errors = 0.3 * random(1000, 1)
    optimizer = torch.optim.Adam([log_variance], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        variance_loss(errors, log_variance.expand(1000, 1), torch.zeros(1000, 1), torch.ones(1000, 1)).backward()
        optimizer.step()
    assert log_variance.exp().item() == pytest.approx(errors.square().mean().item(), rel=0.01)


def test_reliability_is_the_part_of_the_variance_that_is_explained():
    predictor = PhysicsPredictor(4, width=4, uncertainty=True)
    predictor.prior_variance.copy_(torch.tensor([0.04, 0.04, 0.04, 0.0]))
    log_variance = torch.tensor([[0.01, 0.04, 0.09, 1.0]]).log().requires_grad_()
    reliability = predictor.reliability(log_variance)
    torch.testing.assert_close(reliability, torch.tensor([[0.75, 0.0, 0.0, 0.0]]))
    assert not reliability.requires_grad
    assert predictor.reliability(None) is None


def test_an_attribute_that_cannot_be_told_counts_for_nothing():
    predicted, requested, known = random(6, 2), random(6, 2, seed=1), torch.ones(6, 2)
    reliability = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    loss, squared, counts = physics_loss(predicted, requested, known, reliability)
    # Errors are reported in full; the loss averages over all known values, so a doubtful one only dilutes.
    torch.testing.assert_close(loss, (predicted - requested)[:, 0].square().sum() / 12)
    torch.testing.assert_close(squared, (predicted - requested).square().sum(0))
    assert counts.tolist() == [6, 6]


# Photometry in the loss


def discs(scales, size=64):
    axis = (torch.arange(size) + 0.5) / size - 0.5
    radius = torch.hypot(axis[None, :], 1.6 * axis[:, None])
    light = torch.stack([0.7 * torch.exp(-radius / scale) for scale in scales])
    noise = 0.004 * random(len(scales), size, size)
    return (light + 0.03 + noise).clamp(0, 1)[:, None].expand(-1, 3, -1, -1) * 2 - 1


TABLE = attribute_table(("size", "brightness", "redshift", "ellipticity"))


def measured_in_units(images):
    values = photometry.measure((images + 1) / 2)
    columns = [values.attribute(a.name) if a.source == "photometry" else torch.zeros(len(images)) for a in TABLE]
    return torch.stack([a.to_unit(c) for a, c in zip(TABLE, columns, strict=True)], 1)


def test_images_that_have_what_was_requested_cost_nothing():
    images = discs([0.06, 0.1])
    requested = measured_in_units(images)
    requested[:, 2] = 9.0  # redshift is not measured
    assert photometric_loss(images, requested, torch.ones(2, 4), TABLE).item() == pytest.approx(0, abs=1e-10)


def test_photometric_loss_is_the_mean_squared_error_of_what_is_measured():
    images = discs([0.06, 0.1])
    requested = measured_in_units(images) + torch.tensor([[0.1, -0.05, 7.0, 0.02], [0.03, 0.0, 7.0, 1.0]])
    known = torch.ones(2, 4)
    known[1, 3] = 0
    expected = (0.1**2 + 0.05**2 + 0.02**2 + 0.03**2) / 5
    assert photometric_loss(images, requested, known, TABLE).item() == pytest.approx(expected, rel=1e-4)


def test_a_frame_without_a_galaxy_takes_no_part():
    images = torch.cat([discs([0.08]), torch.full((1, 3, 64, 64), -1.0)])
    requested = measured_in_units(images) + 0.1
    requested[1] += 5
    loss = photometric_loss(images, requested, torch.ones(2, 4), TABLE)
    assert loss.item() == pytest.approx(0.01, rel=1e-4)
    assert photometric_loss(images[1:], requested[1:], torch.ones(1, 4), TABLE).item() == 0


def test_descent_on_the_pixels_gives_what_was_requested():
    images = discs([0.06]).clone().requires_grad_()
    goal = measured_in_units(images.detach())
    goal[:, 0] += 0.1  # a tenth of the slider's range larger
    optimizer = torch.optim.Adam([images], 0.002)
    first = photometric_loss(images, goal, torch.ones(1, 4), TABLE).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = photometric_loss(images, goal, torch.ones(1, 4), TABLE)
        loss.backward()
        assert torch.isfinite(images.grad).all()
        optimizer.step()
    assert loss.item() < 0.1 * first


def test_a_seed_draws_the_weights_in_the_order_of_the_layers():
    # What a seed trains would be another run else: nothing but this order says which numbers a layer gets.
    torch.manual_seed(3)
    whole = PhysicsPredictor(2, width=4, uncertainty=True)
    torch.manual_seed(3)
    PhysicsPredictor(2, width=4, uncertainty=False)
    assert torch.equal(whole.doubt[0].weight, torch.nn.Linear(16, 4).weight)
