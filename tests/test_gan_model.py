"""The conditional DCGAN: sizes, ranges, what the condition does, and the losses' known answers."""

import math

import pytest
import torch

import gan_model
from gan_model import (
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
    relativistic_loss,
    smoothed_bce,
)

GUESS = math.log(2)  # cross-entropy of a discriminator that only guesses, in nats
# Entropy of the labels 0.9 and 0.1: what the best possible discriminator still pays.
FLOOR = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Generator(16, 8, width=8).eval()


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return Discriminator(8, width=8).eval()


# Sizes


def test_generator_parameters():
    # Fully connected 108 -> 256 x 4 x 4     108 x 4096 + 4096 =   446,464
    # Transposed 4 x 4 convolutions       256 x 256 x 16       = 1,048,576
    #                                     256 x 128 x 16       =   524,288
    #                                     128 x  64 x 16       =   131,072
    #                                      64 x   3 x 16 + 3   =     3,075
    # BatchNorm of 256, 128 and 64 channels   2 x 448          =       896
    assert num_parameters(Generator(100, 8)) == 2_154_371


def test_discriminator_parameters():
    # 4 x 4 convolutions of 3 + 8 planes   11 x  64 x 16 + 64  =    11,328
    #                                      64 x 128 x 16       =   131,072
    #                                     128 x 256 x 16       =   524,288
    #                                     256 x 256 x 16       = 1,048,576
    # BatchNorm of 128, 256 and 256 channels   2 x 640         =     1,280
    # Linear 256 x 4 x 4 -> 1                 4096 + 1         =     4,097
    assert num_parameters(Discriminator(8)) == 1_720_641


@pytest.mark.parametrize("extra", [1, 5])
def test_each_condition_adds_its_weights(extra):
    # A row of the fully connected layer; a plane of the first convolution.
    assert num_parameters(Generator(100, 8 + extra)) == 2_154_371 + extra * 4096
    assert num_parameters(Discriminator(8 + extra)) == 1_720_641 + extra * 64 * 16


@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes_and_ranges(size):
    torch.manual_seed(0)
    generator = Generator(16, 8, width=4, image_size=size)
    discriminator = Discriminator(8, width=4, image_size=size)
    condition = random(3, 8, seed=1)
    images = generator(random(3, 16), condition)
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() < 1
    logits = discriminator(images, condition)
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()


def test_output_is_bounded_however_far_out_the_noise(generator):
    images = generator(1e4 * random(2, 16), random(2, 8))
    assert images.abs().max() <= 1
    # The output layer bends; it does not cut at a smaller value.
    assert images.abs().max() > 0.9


def test_one_image_can_be_generated_and_judged(generator, discriminator):
    condition = random(1, 8)
    assert discriminator(generator(random(1, 16), condition), condition).shape == (1,)


def test_weights_start_as_in_the_dcgan_paper():
    torch.manual_seed(0)
    for network in (Generator(100, 8), Discriminator(8)):
        weights = [w for name, w in network.named_parameters() if name.endswith("weight") and w.ndim == 4]
        assert len(weights) == 4
        for weight in weights:
            # Of 3072 or more draws the standard deviation is known to 1.3 %; five times that.
            assert weight.std().item() == pytest.approx(0.02, rel=0.065)
            assert abs(weight.mean().item()) < 0.002


# The condition


def one_hot(index, attributes=(0.5, 0.5, 0.5, 0.5)):
    return torch.tensor([[*(float(i == index) for i in range(4)), *attributes]])


@pytest.mark.parametrize("other", [1, 2, 3])
def test_the_class_alone_changes_the_output(generator, discriminator, other):
    z, images = random(1, 16), random(1, 3, 64, 64)
    first, second = generator(z, one_hot(0)), generator(z, one_hot(other))
    assert torch.equal(first, generator(z, one_hot(0)))
    assert (first - second).abs().max() > 1e-6
    assert (discriminator(images, one_hot(0)) - discriminator(images, one_hot(other))).abs() > 1e-8


@pytest.mark.parametrize("attribute", range(4))
def test_one_attribute_alone_changes_the_output(generator, discriminator, attribute):
    z, images = random(1, 16), random(1, 3, 64, 64)
    low, high = one_hot(0), one_hot(0)
    low[0, 4 + attribute], high[0, 4 + attribute] = 0.2, 0.8
    assert (generator(z, low) - generator(z, high)).abs().max() > 1e-6
    assert (discriminator(images, low) - discriminator(images, high)).abs() > 1e-8


def test_the_noise_changes_the_output(generator):
    images = generator(random(2, 16), one_hot(0).repeat(2, 1))
    assert (images[0] - images[1]).abs().max() > 1e-6


def test_every_image_gets_its_own_condition(generator, discriminator):
    z, condition, images = random(3, 16), random(3, 8, seed=1), random(3, 3, 64, 64)
    generated, logits = generator(z, condition), discriminator(images, condition)
    for i in range(3):
        part = slice(i, i + 1)
        torch.testing.assert_close(generator(z[part], condition[part]), generated[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discriminator(images[part], condition[part]), logits[part], rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    generator, discriminator = Generator(16, 8, width=4), Discriminator(8, width=4)
    condition = random(4, 8)
    generator_loss(discriminator(generator(random(4, 16), condition), condition)).backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


# Losses


def test_losses_of_a_guess():
    logits = torch.zeros(5)
    on_real, on_fake = discriminator_loss(logits, logits, 0.9, 0.1)
    assert on_real.item() == pytest.approx(GUESS, abs=1e-6)
    assert on_fake.item() == pytest.approx(GUESS, abs=1e-6)
    assert (on_real + on_fake).item() == pytest.approx(2 * GUESS, abs=1e-6)
    assert generator_loss(logits).item() == pytest.approx(GUESS, abs=1e-6)


def test_floors_of_label_smoothing():
    assert pytest.approx(0.3251, abs=5e-5) == FLOOR
    # The best answer to a label p is the logit ln(p / (1 - p)) = ±ln 9.
    best = torch.full((4,), math.log(9.0))
    on_real, on_fake = discriminator_loss(best, -best, 0.9, 0.1)
    assert on_real.item() == pytest.approx(FLOOR, abs=1e-6)
    assert on_fake.item() == pytest.approx(FLOOR, abs=1e-6)
    # Nothing is below the floor, also not more certainty.
    logits = torch.linspace(-20, 20, 401)
    assert min(smoothed_bce(logit[None], 0.9).item() for logit in logits) >= FLOOR - 1e-6
    assert discriminator_loss(3 * best, -3 * best, 0.9, 0.1)[0] > on_real + 0.1


def test_terms_belong_to_their_images():
    real, fake = torch.tensor([3.0, 2.0]), torch.tensor([-1.0, -4.0, 0.0])
    on_real, on_fake = discriminator_loss(real, fake, 0.9, 0.1)
    # BCE with logits: -[y ln s(x) + (1 - y) ln s(-x)].
    expected_real = (-0.9 * torch.sigmoid(real).log() - 0.1 * torch.sigmoid(-real).log()).mean()
    expected_fake = (-0.1 * torch.sigmoid(fake).log() - 0.9 * torch.sigmoid(-fake).log()).mean()
    assert on_real.item() == pytest.approx(expected_real.item(), rel=1e-5)
    assert on_fake.item() == pytest.approx(expected_fake.item(), rel=1e-5)
    assert generator_loss(fake).item() == pytest.approx((-torch.sigmoid(fake).log()).mean().item(), rel=1e-5)


@pytest.mark.parametrize("label", [0.0, 0.1, 0.5, 1.0])
def test_smoothed_bce_is_torch_bce(label):
    logits = random(32)
    expected = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), torch.full((32,), label))
    torch.testing.assert_close(smoothed_bce(logits, label), expected, rtol=1e-4, atol=1e-6)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = sum(discriminator_loss(logits, logits, 0.9, 0.1)) + generator_loss(logits)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    # -ln s(-10,000) is 10,000, over two images.
    assert generator_loss(logits).item() == pytest.approx(5000)


def test_gradients_push_the_right_way():
    logits = torch.zeros(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(generator_loss(logits), logits)
    # d/dx of -ln s(x) is s(x) - 1 = -1/2, shared by two images: descent raises the logits.
    torch.testing.assert_close(gradient, torch.full((2,), -0.25))


@pytest.mark.parametrize("image_size", [64, 128, 256])
def test_resizing_generator_has_the_same_shape_and_nine_sixteenths_of_the_kernels(image_size):
    resizing, transposed = (Generator(10, 8, 4, image_size, kind) for kind in ("resize", "transposed"))
    assert resizing(torch.randn(2, 10), torch.randn(2, 8)).shape == (2, 3, image_size, image_size)
    kernels = [sum(p.numel() for p in g.upsample.parameters() if p.ndim == 4) for g in (resizing, transposed)]
    assert kernels[0] * 16 == kernels[1] * 9


@torch.no_grad()
def test_resizing_generator_leaves_no_checkerboard():
    # Constant maps, away from the border: a transposed convolution gives neighbouring pixels other kernel taps.
    def alternation(kind: str) -> float:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(*Generator(10, 8, 4, 64, kind).upsample[: 1 if kind == "transposed" else 2])
        maps = layers(torch.ones(1, 16, 16, 16))[0, :, 8:-8, 8:-8]
        return (maps[:, :, 1:] - maps[:, :, :-1]).abs().max().item()

    assert alternation("resize") < 1e-6
    assert alternation("transposed") > 1e-3


def test_pairs_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(3.0))) / 2
    assert relativistic_loss(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert relativistic_loss(real, real).item() == pytest.approx(GUESS, rel=1e-6)


def test_only_differences_of_a_pair_count():
    real, fake = random(8), random(8, seed=1)
    torch.testing.assert_close(
        relativistic_loss(real + 100, fake + 100), relativistic_loss(real, fake), rtol=1e-4, atol=0
    )
    # Cross-entropy looks at the level.
    assert (
        abs(sum(discriminator_loss(real + 100, fake + 100, 0.9, 0.1)) - sum(discriminator_loss(real, fake, 0.9, 0.1)))
        > 1
    )


def test_pairs_push_both_images_apart_and_stay_finite():
    logits = torch.zeros(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(relativistic_loss(logits[:1], logits[1:]), logits)
    torch.testing.assert_close(gradient, torch.tensor([-0.5, 0.5]))
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = relativistic_loss(far[:1], far[1:])
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert torch.isfinite(far.grad).all()


def test_gradient_penalty_of_a_linear_discriminator_is_the_squared_norm_of_its_weights():
    slope = torch.randn(3, 8, 8)
    images = torch.randn(5, 3, 8, 8, requires_grad=True)
    penalty = gan_model.gradient_penalty((images * slope).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, slope.square().sum())


def test_generator_is_the_same_function_with_and_without_gradients():
    torch.manual_seed(0)
    generator = Generator(16, 8, width=8, upsampling="resize").eval()
    z, condition = torch.randn(4, 16), torch.randn(4, 8)
    with torch.no_grad():
        plain = generator(z, condition)
    torch.testing.assert_close(generator(z, condition), plain, rtol=1e-5, atol=1e-6)


def test_last_layer_has_the_gradients_of_a_plain_convolution():
    torch.manual_seed(0)
    thin = Generator(16, 8, width=8, upsampling="resize").upsample[-2].double()
    plain = torch.nn.Conv2d(8, 3, 3, padding=1).double()
    plain.load_state_dict(thin.state_dict())
    features = torch.randn(2, 8, 16, 16).double()
    for layer in (thin, plain):
        layer(features).square().sum().backward()
    torch.testing.assert_close(thin.weight.grad, plain.weight.grad)
    torch.testing.assert_close(thin.bias.grad, plain.bias.grad)
