"""The diffusion process and the U-Net: schedules, identities, conditioning."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from diffusion_model import (
    DiffusionGenerator,
    GaussianDiffusion,
    cosine_schedule,
    denoising_loss,
    linear_schedule,
)
from galaxies.compute.device import Engine
from galaxies.generation.solvers import Solver, ddim_step, dpm_step, draw_images, posterior_deviation, solver_times
from galaxies.networks.unet import ContextUnet, _Attention, _normalise, _time_features
from tests.conftest import Oracle

SHAPE = (3, 64, 64)


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def noise():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def small_model(**process) -> DiffusionGenerator:
    torch.manual_seed(0)
    settings = {"schedule": "cosine", "num_steps": 50, "prediction": "v", **process}
    model = DiffusionGenerator(ContextUnet(12, width=4, num_blocks=1), GaussianDiffusion(**settings), 64)
    for parameter in model.parameters():  # also those that start at 0
        torch.nn.init.normal_(parameter, 0, 0.3)
    return model.eval()


# Schedules


def test_the_document_s_schedule_keeps_three_fifths_of_the_amplitude():
    assert linear_schedule(100)[-1].item() == pytest.approx(0.364, abs=5e-4)
    assert linear_schedule(1000)[-1].item() < 1e-4


@pytest.mark.parametrize("shift", [1.0, 4.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 100, 1000, 4000])
def test_nothing_is_left_at_the_end_whatever_the_number_of_steps(num_steps, shift):
    schedule = cosine_schedule(num_steps, shift)
    assert schedule.shape == (num_steps + 1,)
    assert schedule[0] == 1 and schedule[-1] < 1e-3
    assert (schedule.diff() < 0).all()


def test_the_cosine_schedule_is_near_that_of_the_paper():
    t = torch.arange(1001) / 1000
    published = torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square()
    assert (cosine_schedule(1000) - published / published[0]).abs().max() < 2e-3


def test_a_shift_makes_the_noise_so_many_times_as_strong():
    plain, shifted = (cosine_schedule(100, shift)[1:-1] for shift in (1.0, 4.0))
    ratio = ((1 - shifted) / shifted).sqrt() / ((1 - plain) / plain).sqrt()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 4.0))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_times_are_found_by_their_noise(schedule):
    process = GaussianDiffusion(schedule, 100, "noise")
    for t in range(1, 101):
        ratio = process.noise_ratios[t]
        assert process.time_of(ratio) == process.time_of(1.001 * ratio) == process.time_of(0.999 * ratio) == t
    assert process.time_of(0.0) == 1 and process.time_of(float("inf")) == 100


# Identities of the process


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_noising_and_the_right_answer_give_the_image_back(images, noise, prediction):
    process = GaussianDiffusion("cosine", 100, prediction)
    t = torch.tensor([1, 20, 60, 95])
    x_t = process.q_sample(images, t, noise)
    found = process.predict_x0(x_t, t, process.target(images, t, noise))
    torch.testing.assert_close(found, images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(process.predict_noise(x_t, t, images), noise, rtol=1e-3, atol=1e-2)


def test_velocity_tells_the_image_even_where_no_signal_is_left(images, noise):
    process = GaussianDiffusion("cosine", 10, "v")
    t = torch.full((4,), 10)
    torch.testing.assert_close(process.q_sample(images, t, noise), noise)
    torch.testing.assert_close(process.predict_x0(noise, t, process.target(images, t, noise)), images)


def test_variance_is_preserved(noise):
    process = GaussianDiffusion("cosine", 100, "v")
    x_t = process.q_sample(torch.randn(4, *SHAPE), torch.tensor([1, 30, 70, 100]), noise)
    assert x_t.square().mean((1, 2, 3)).tolist() == pytest.approx([1] * 4, rel=0.05)


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_the_error_of_the_image_counts_no_more_than_gamma(prediction):
    process, t = GaussianDiffusion("cosine", 100, prediction), torch.arange(1, 100)
    snr = (process.alphas_cumprod / (1 - process.alphas_cumprod))[t].double()
    # The squared error of x_0 is that of v over SNR + 1, and that of the noise over SNR.
    own = snr + 1 if prediction == "v" else snr
    weight_of_image = process.loss_weight(t, 5.0).double() * own
    torch.testing.assert_close(weight_of_image, own.clamp_max(5.0), rtol=1e-3, atol=1e-6)
    assert torch.equal(process.loss_weight(t, 0.0), torch.ones(99))


def test_the_step_that_drawing_begins_with_is_learned():
    process = GaussianDiffusion("cosine", 100, "v")
    assert process.loss_weight(torch.tensor([100]), 5.0) == 1


# Steps to learn from


@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_even_numbers_give_every_step_equally_often(num_steps):
    process = GaussianDiffusion("cosine", num_steps, "v", 4.0)
    level = (torch.arange(3 * num_steps) + 0.5) / (3 * num_steps)
    assert torch.equal(process.draw_times(level), torch.arange(1, num_steps + 1).repeat_interleave(3))
    assert process.draw_times(torch.tensor([0.0, 1.0])).tolist() == [1, num_steps]


def test_a_share_of_the_steps_has_as_little_noise_as_the_grain():
    process, share, number = GaussianDiffusion("cosine", 1000, "v", 4.0), 0.25, 100_000
    level = (torch.arange(number) + 0.5) / number
    t = process.draw_times(level, share)
    low, others = t[: number // 4], t[number // 4 :]
    ratio = (process.sigma / process.signal)[low].double()
    assert ratio.max() < 0.31 and (ratio.diff() >= 0).all()
    # Even in the logarithm of the noise: the middle of them is the geometric mean of 0.02 and 0.3.
    assert ratio.median().item() == pytest.approx((0.02 * 0.3) ** 0.5, rel=0.1)
    for limit in (0.06, 0.12):
        expected = torch.tensor(limit / 0.02).log() / torch.tensor(0.3 / 0.02).log()
        assert (ratio < limit).double().mean().item() == pytest.approx(expected.item(), abs=0.06)
    # The rest is drawn from all steps, as without a share.
    assert torch.bincount(others, minlength=1001)[1:].double().std() < 1
    assert (others.min(), others.max()) == (1, 1000)


def test_as_many_images_of_every_batch_have_little_noise():
    process, places = GaussianDiffusion("cosine", 1000, "v", 4.0), torch.arange(16) / 16
    for within in (0.0, 0.3, 0.999):
        t = process.draw_times(places + within / 16, 0.25)
        assert (t[:4] <= 41).all()  # noise of at most 0.3 of the signal
        assert len(set(t[4:].tolist())) == 12 and (t[5:] > 41).all()


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("num_steps", [2, 10, 1000])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_number_gives_a_step(schedule, num_steps, share):
    process = GaussianDiffusion(schedule, num_steps, "v", 4.0)
    t = process.draw_times(torch.linspace(0, 1, 1001), share)
    assert t.dtype == torch.int64 and t.min() >= 1 and t.max() <= num_steps


def test_denoising_loss_is_a_weighted_mean():
    output, target = torch.zeros(2, *SHAPE), torch.stack([torch.full(SHAPE, 1.0), torch.full(SHAPE, 2.0)])
    assert denoising_loss(output, target, torch.tensor([1.0, 0.5])).item() == pytest.approx((1 + 0.5 * 4) / 2)


# Solvers


def test_ddim_with_noise_has_the_posterior_s_variance(images, noise):
    process = GaussianDiffusion("linear", 1000, "noise")
    now, then = 500, 499
    alpha_now, alpha_then = process.alpha_bars[now], process.alpha_bars[then]
    beta = 1 - alpha_now / alpha_then
    expected = (1 - alpha_then) / (1 - alpha_now) * beta
    assert posterior_deviation(alpha_now, alpha_then) ** 2 == pytest.approx(expected, rel=1e-6)
    # And its mean is that of Ho et al. 2020, eq. 7.
    x_t = process.q_sample(images, torch.full((4,), now), noise)
    mean = alpha_then**0.5 * beta / (1 - alpha_now) * images
    mean = mean + (1 - beta) ** 0.5 * (1 - alpha_then) / (1 - alpha_now) * x_t
    without_noise = ddim_step(process, x_t, images, now, then, 1.0, torch.zeros_like(x_t))
    torch.testing.assert_close(without_noise.double(), mean.double(), rtol=1e-3, atol=1e-3)


def test_a_first_step_with_noise_is_ddpm_s(images, noise):
    process = GaussianDiffusion("cosine", 100, "v")
    x_t, fresh = process.q_sample(images, torch.full((4,), 60), noise), torch.randn(4, *SHAPE)
    found = dpm_step(process, x_t, images, 60, 35, None, fresh)
    torch.testing.assert_close(found, ddim_step(process, x_t, images, 60, 35, 1.0, fresh), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_fresh_noise_keeps_the_distribution(spread):
    """Gaussian data, for which the best prediction is linear: what is drawn has their standard deviation."""
    process, generator = GaussianDiffusion("cosine", 1000, "v", 4.0), torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(40_000, 1, 1, 1, generator=generator)

    x_t, previous = draw(), None
    for now, then in pairwise(solver_times(process, 20)):
        signal, sigma = process.signal[now], process.sigma[now]
        x0 = spread**2 * signal / (spread**2 * signal**2 + sigma**2) * x_t
        x_t, previous = (dpm_step(process, x_t, x0, now, then, previous, draw()), (x0, now)) if then else (x0, None)
    assert x_t.std().item() == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize("name", ["sde", "dpm", "ddim", "ddpm"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 20])
@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_solvers_find_what_the_network_knows(images, noise, name, num_steps, prediction):
    schedule = "cosine" if prediction == "v" else "linear"
    process = GaussianDiffusion(schedule, 100, prediction)
    model = DiffusionGenerator(Oracle(process, images), process, 64)
    solver = Solver(name, num_steps)
    found = draw_images(model, noise, torch.zeros(4, 1), solver, lambda k: torch.randn(4, *SHAPE))
    torch.testing.assert_close(found, images, rtol=1e-2, atol=1e-2)


def test_dpm_is_of_second_order_on_a_known_distribution():
    """For Gaussian data the best prediction is linear and the path is known: errors fall as the square of the step."""
    process, spread = GaussianDiffusion("cosine", 1000, "v"), 0.5

    def error(num_steps, step):
        x_t, previous = torch.ones(1, 1, 1, 1, dtype=torch.float64), None
        times = [time for time in solver_times(process, num_steps, even=True) if 100 <= time <= 900]
        for now, then in pairwise(times):
            signal, sigma = process.signal[now].double(), process.sigma[now].double()
            x0 = spread**2 * signal / (spread**2 * signal**2 + sigma**2) * x_t
            if step == "dpm":
                x_t, previous = dpm_step(process, x_t, x0, now, then, previous).double(), (x0, now)
            else:
                x_t = ddim_step(process, x_t, x0, now, then, 0.0, None).double()

        def deviation(time):
            return (spread**2 * process.signal[time].double() ** 2 + process.sigma[time].double() ** 2).sqrt()

        # Along the path x_t stays the same number of standard deviations from the mean.
        return abs(x_t.item() - (deviation(100) / deviation(900)).item())

    assert error(40, "dpm") < 0.4 * error(20, "dpm")
    assert error(20, "dpm") < 0.3 * error(20, "ddim")


def test_solver_times():
    process = GaussianDiffusion("cosine", 1000, "v", 4.0)
    assert solver_times(process, 4, even=True) == [1000, 750, 500, 250, 0]
    times = solver_times(process, 20)
    assert times[:2] == [1000, 950] and times[-2:] == [1, 0]
    # Karras et al. 2022, eq. 5: even in the seventh root, but for whole times where there are few.
    root = (process.sigma / process.signal)[torch.tensor(times[1:-1])].double() ** (1 / 7)
    torch.testing.assert_close(root, torch.linspace(root[0], root[-1], 19).double(), rtol=0.04, atol=0)
    torch.testing.assert_close(root[:14], torch.linspace(root[0], root[-1], 19)[:14].double(), rtol=2e-3, atol=0)
    assert solver_times(process, 1) == [1000, 0] and solver_times(process, 2) == [1000, 500, 0]
    few = GaussianDiffusion("linear", 3, "noise")
    assert solver_times(few, 10) == solver_times(few, 10, even=True) == [3, 2, 1, 0]


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(("schedule", "num_steps"), [("cosine", 2), ("cosine", 1000), ("linear", 100)])
def test_no_two_times_of_a_solver_are_alike(schedule, num_steps, even):
    process = GaussianDiffusion(schedule, num_steps, "v", 4.0)
    for number in range(1, num_steps + 1, 1 + num_steps // 200):
        times = solver_times(process, number, even)
        assert times[0] == num_steps and times[-1] == 0 and len(times) == number + 1
        assert all(now > then for now, then in pairwise(times))
    assert solver_times(process, num_steps, even) == list(range(num_steps, -1, -1))


@pytest.mark.parametrize(("name", "tolerance"), [("dpm", 0.04), ("ddim", 0.2)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])  # of the sky's grain, of pixels, of light over the whole image
def test_twenty_steps_keep_the_variance_of_what_is_faint_or_large(name, tolerance, spread):
    """For Gaussian data the best prediction is linear, and what is drawn should have the data's variance."""
    process = GaussianDiffusion("cosine", 1000, "v", 4.0)
    x_t, previous = torch.ones(1, 1, 1, 1, dtype=torch.float64), None
    for now, then in pairwise(solver_times(process, 20)):
        alpha = process.alpha_bars[now]
        x0 = spread**2 * alpha**0.5 / (spread**2 * alpha + 1 - alpha) * x_t
        if name == "dpm":
            x_t, previous = (dpm_step(process, x_t, x0, now, then, previous), (x0, now)) if then else (x0, None)
        else:
            x_t = ddim_step(process, x_t, x0, now, then, 0.0, None) if then else x0
    assert x_t.item() == pytest.approx(spread, rel=tolerance)


@torch.no_grad()
def test_guidance_of_weight_1_is_none(noise):
    model, condition = small_model(), torch.rand(4, 12)
    t = torch.full((4,), 25)
    plain = model.predict_x0(noise, t, condition)
    assert torch.equal(model.predict_x0(noise, t, condition, 1.0), plain)
    torch.testing.assert_close(model.predict_x0(noise, t, condition, 1.0 + 1e-7), plain, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(model.predict_x0(noise, t, condition, 3.0), plain, atol=1e-3)
    nothing = model.predict_x0(noise, t, torch.zeros(4, 12))
    torch.testing.assert_close(model.predict_x0(noise, t, condition, 0.0), nothing)


@torch.no_grad()
def test_sampling_is_deterministic_but_for_the_noise_of_ancestral_steps(noise):
    model, condition = small_model(), torch.rand(4, 12)

    def draw(name, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return draw_images(
            model, noise, condition, Solver(name, 5), lambda k: torch.randn(4, *SHAPE, generator=generator)
        )

    for name in ("dpm", "ddim"):
        assert torch.equal(draw(name), draw(name, 1))
    for name in ("sde", "ddpm"):
        assert torch.equal(draw(name), draw(name))
        assert not torch.equal(draw(name), draw(name, 1))


# The network


@pytest.mark.parametrize("image_size", [64, 128])
def test_shape_and_start(image_size):
    unet = ContextUnet(12, width=4, image_size=image_size, num_blocks=2)
    output = unet(torch.randn(2, 3, image_size, image_size), torch.rand(2), torch.rand(2, 12))
    assert output.shape == (2, 3, image_size, image_size)
    assert (output == 0).all()  # the last convolution starts at 0: the first prediction is the mean


@torch.no_grad()
def test_time_condition_and_every_pixel_matter(noise):
    unet = small_model().unet
    t, condition = torch.full((4,), 0.5), torch.rand(4, 12)
    output = unet(noise, t, condition)
    assert not torch.allclose(unet(noise, t + 0.1, condition), output, atol=1e-4)
    changed = condition.clone()
    changed[:, 5] += 0.5
    assert not torch.allclose(unet(noise, t, changed), output, atol=1e-4)
    moved = noise.clone()
    moved[0, 1, 40, 13] += 1
    difference = (unet(moved, t, condition) - output).abs()
    assert difference[0].max() > 1e-4
    assert difference[1:].max() < 1e-5  # images of a batch do not mix


def test_normalising_is_undone(images):
    model = small_model()
    model.mean.copy_(torch.tensor([-0.9, -0.8, -0.7])[:, None, None])
    model.deviation.fill_(0.2)
    torch.testing.assert_close(model.to_images(model.normalise(images)), images)
    assert model.to_images(model.clip(model.normalise(3 * images))).abs().max() <= 1 + 1e-5


# Patches


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_pixels_may_enter_in_patches_of_any_offered_size(noise, patch):
    torch.manual_seed(0)
    unet = ContextUnet(12, width=4, num_blocks=1, patch=patch)
    torch.nn.init.normal_(unet.leave[-1].weight)
    condition, t = torch.zeros(4, 12), torch.full((4,), 0.5)
    output = unet(noise, t, condition)
    assert output.shape == noise.shape
    # Every pixel's answer depends on its own noise.
    moved = unet(noise + 0.5 * torch.eye(64).expand_as(noise), t, condition)
    assert (moved - output).diagonal(dim1=2, dim2=3).abs().min() > 0


def test_attention_divides_any_number_of_channels():
    for width in (5, 28, 44):
        unet = ContextUnet(12, width, num_blocks=1)
        assert unet(torch.randn(1, *SHAPE), torch.full((1,), 0.5), torch.zeros(1, 12)).shape == (1, *SHAPE)


def test_hidden_weights_are_those_whose_sums_grow_with_the_width():
    networks = [ContextUnet(12, width, num_blocks=1) for width in (4, 8)]
    names = {id(p): name for name, p in networks[0].named_parameters()}
    hidden = {names[id(p)] for p in networks[0].hidden_weights()}
    narrow, wide = (dict(network.named_parameters()) for network in networks)
    summed = {
        name: [weights[name][0].numel() for weights in (narrow, wide)] for name in narrow if narrow[name].dim() > 1
    }
    assert hidden == {name for name, (few, many) in summed.items() if many == 2 * few}
    assert set(summed) - hidden == {name for name, (few, many) in summed.items() if many == few}


def moved_maps(width: int, share: float, noise: torch.Tensor) -> float:
    """Return how much the last maps of a new network change in four steps of Adam, root mean square."""
    torch.manual_seed(0)
    network = ContextUnet(12, width, noise.shape[-1], num_blocks=1)
    seen = []
    network.leave.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    engine = Engine.choose("cpu", "fp32")
    optimizer = engine.adam(network, 2e-3, (0.9, 0.999), network.hidden_weights(), share)
    condition = torch.eye(4, 12)
    for _ in range(5):
        optimizer.zero_grad()
        (network(noise, torch.linspace(0.1, 0.9, 4), condition) - noise.roll(3, 3)).square().mean().backward()
        optimizer.step()
    return float((seen[-1] - seen[0]).square().mean().sqrt())


def test_what_a_step_does_to_the_maps_does_not_grow_with_the_width(noise):
    # The coordinate check of Yang et al. (2022), figure 5: eight times the width, and far more than that the change.
    noise = noise[..., :32, :32]
    narrow = moved_maps(8, 1.0, noise)
    assert moved_maps(64, 1.0, noise) > 5 * narrow
    assert 0.4 * narrow < moved_maps(64, 8 / 64, noise) < 1.2 * narrow


# Arithmetic in bfloat16


def test_bfloat16_changes_output_and_gradient_by_its_rounding(noise):
    torch.manual_seed(0)
    network = ContextUnet(12, 8, num_blocks=2)
    for name, weights in network.named_parameters():  # those that start at 0
        if weights.dim() > 1 and not weights.any():
            torch.nn.init.normal_(weights, 0, 0.5 / weights[0].numel() ** 0.5)
        assert weights.dim() == 1 or weights.any(), name
    x0 = noise.roll(3, 3)
    outputs, gradients = [], []
    for bf16 in (False, True):
        network.zero_grad()
        with Engine(torch.device("cpu"), bf16).autocast():
            output = network(noise, torch.linspace(0.1, 0.9, 4), torch.eye(4, 12))
        assert output.dtype == (torch.bfloat16 if bf16 else torch.float32)
        loss = denoising_loss(output, x0, torch.ones(4))
        loss.backward()
        assert {t.dtype for p in network.parameters() for t in (p, p.grad)} == {torch.float32} == {loss.dtype}
        outputs.append(output.detach().float())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    # 8 bits of mantissa through some thirty layers: 1 % measured, of the head and of all sums of residuals.
    assert (outputs[1] - outputs[0]).norm() < 0.03 * outputs[0].norm()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_time_is_told_in_float32(noise):
    t = torch.arange(1, 1001) / 1000
    with Engine(torch.device("cpu"), True).autocast():
        features = _time_features(t)
    assert features.dtype == torch.float32
    frequencies = 10_000 ** -(torch.arange(64, dtype=torch.float64) / 63)
    angle = 1000 * t.double()[:, None] * frequencies
    torch.testing.assert_close(features.double(), torch.cat([angle.sin(), angle.cos()], 1), rtol=0, atol=5e-4)


def test_normalisation_sums_in_float32():
    # A mean of 40 times the spread: in sums of 8 bits nothing of the spread would be left.
    maps = (40 + torch.randn(2, 16, 32, 32, generator=torch.Generator().manual_seed(0))).bfloat16()
    with Engine(torch.device("cpu"), True).autocast():
        found = _normalise(16)(maps).double()
    groups = maps.double().view(2, 8, -1)
    spread = (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = ((groups - groups.mean(-1, keepdim=True)) / spread).view_as(maps)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2e-3)


@torch.no_grad()
def test_attention_s_softmax_is_taken_in_float32():
    torch.manual_seed(0)
    block = _Attention(32)
    torch.nn.init.eye_(block.merge.weight.data[:, :, 0, 0])
    block.project.weight *= 30  # logits of hundreds, whose exponentials bfloat16 cannot tell apart
    # As autocast rounds them, so that only what follows differs.
    block.project.weight.copy_(block.project.weight.bfloat16().float())
    maps = torch.randn(2, 32, 8, 8)
    with Engine(torch.device("cpu"), True).autocast():
        found = block(maps).float() - maps
        heads = block.project(block.norm(maps)).float().view(2, 3, 1, 32, 64).transpose(3, 4).double()
    query, key, value = heads.unbind(1)
    logits = query @ key.transpose(2, 3) / 32**0.5
    assert logits.abs().max() > 200
    expected = (logits.softmax(-1) @ value).transpose(2, 3).reshape(2, 32, 8, 8)
    torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2**-7 * float(value.abs().max()))
