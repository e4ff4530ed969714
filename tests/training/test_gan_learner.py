"""The options of the GAN's step: what each adds to the losses, whom it teaches, and that all of them go together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.batches import Batch
from galaxies.generation.build import build_generator
from galaxies.training.gan_learner import GAN_TERMS, GanLearner
from galaxies.training.health import health_warnings
from galaxies.training.perceptual import Vgg16
from gan_model import DISCRIMINATORS, ProjectionDiscriminator, build_discriminator, relativistic_loss
from tests.conftest import MODERN, differences, make_trainer


def trainer_of(data, tmp_path, **settings):
    trainer = make_trainer(data, tmp_path, precision="fp32", **settings)
    trainer.start_phase("generator")
    trainer.batches.start_epoch()
    return trainer


def step(trainer, number=1) -> dict[str, float]:
    learner = trainer.learner
    terms, *_ = learner.step(trainer.batches.next_batch(), learner.variant("generator", number))
    return dict(zip(learner.terms["generator"], (float(term.detach()) for term in terms), strict=True))


def weights(trainer, name) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.learner.networks[name].parameters()]


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def watch(monkeypatch, learner) -> list[tuple[Tensor, Tensor]]:
    """Collect the images and conditions that the discriminator gets to see, a batch of the run's size at a time."""
    seen, assess = [], learner.discriminator.assess

    def watched(images, condition):
        size = learner.config.batch_size
        seen.extend(zip(images.detach().clone().split(size), condition.clone().split(size), strict=True))
        return assess(images, condition)

    monkeypatch.setattr(learner.discriminator, "assess", watched)
    return seen


def test_without_options_the_terms_are_the_plain_ones(data, tmp_path):
    trainer = trainer_of(data, tmp_path, regression_weight=0.0)
    names = "d_loss_real d_loss_fake g_adversarial physics photometry d_real d_fake d_grad_norm g_grad_norm"
    assert trainer.learner.terms["generator"] == tuple(names.split())
    assert trainer.learner.errors("generator") == tuple(f"physics_{a}" for a in trainer.config.attributes)
    assert "augmentation" not in trainer.learner.state_dict()


def test_the_loss_of_pairs_is_that_of_the_same_rows(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path, adversarial="relativistic", learning_rate=0.0)
    seen = watch(monkeypatch, trainer.learner)
    terms = step(trainer)
    real, fake, judged, again = seen
    assert all(torch.equal(condition, real[1]) for _, condition in seen)
    assert torch.equal(real[0], again[0]) and torch.equal(fake[0], judged[0])
    logits = [trainer.learner.discriminator(*part).detach() for part in (real, fake)]
    assert terms["d_loss"] == pytest.approx(relativistic_loss(*logits).item(), rel=1e-4)
    assert terms["g_adversarial"] == pytest.approx(relativistic_loss(*logits[::-1]).item(), rel=1e-4)
    assert terms["d_pairs"] == pytest.approx((logits[0] - logits[1]).sigmoid().mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_say_whether_they_couple_images(name):
    torch.manual_seed(0)
    config = Config(width=4, discriminator=name, regression_weight=0.0 if name == "dcgan" else 1.0)
    discriminator = build_discriminator(config).train()
    images, condition = torch.randn(4, 3, 64, 64), torch.randn(4, config.condition_dim)
    with torch.no_grad():
        together, alone = discriminator.assess(images, condition)[0], discriminator.assess(images[:2], condition[:2])[0]
    assert discriminator.couples_images == (not torch.allclose(together[:2], alone, atol=1e-5))


@pytest.mark.parametrize("settings", [{}, MODERN | {"augment_discriminator": "fixed"}], ids=["default", "modern"])
def test_real_and_generated_images_are_one_batch_that_gives_what_two_give(data, tmp_path, monkeypatch, settings):
    results = []
    for couples in (False, True):
        trainer = trainer_of(data, tmp_path, **{"class_weight": 1.0, **settings})
        monkeypatch.setattr(type(trainer.learner.discriminator), "couples_images", couples)
        sizes, assess = [], trainer.learner.discriminator.assess
        monkeypatch.setattr(
            trainer.learner.discriminator, "assess", lambda i, c, a=assess, s=sizes: (s.append(len(i)), a(i, c))[1]
        )
        terms = step(trainer)
        gradients = [p.grad for p in trainer.learner.discriminator.parameters()]
        results.append((sizes[: 2 if couples else 1], terms, gradients))
    (one_size, one, one_gradients), (two_sizes, two, two_gradients) = results
    assert (one_size, two_sizes) == ([32], [16, 16])
    assert one == pytest.approx(two, rel=2e-3)  # the generator's terms come after a step of the discriminator
    for name in ("d_loss", "d_loss_real", "d_loss_fake", "d_regression_real", "d_regression_fake", "d_class_real"):
        assert name not in one or one[name] == pytest.approx(two[name], rel=1e-5)
    for joint, separate in zip(one_gradients, two_gradients, strict=True):
        torch.testing.assert_close(joint, separate, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("number", "sizes"), [(0, [16, 16, 16]), (1, [32, 16])], ids=["penalised", "plain"])
def test_a_penalty_on_half_the_images_is_not_computed_on_all(data, tmp_path, monkeypatch, number, sizes):
    trainer, seen = trainer_of(data, tmp_path, r2_weight=0.0), []
    assess = trainer.learner.discriminator.assess
    monkeypatch.setattr(trainer.learner.discriminator, "assess", lambda i, c: (seen.append(len(i)), assess(i, c))[1])
    step(trainer, number)
    assert seen == sizes


@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_a_discriminator_that_cannot_tell_pays_for_guessing_and_gives_no_warning(data, tmp_path, adversarial):
    trainer = trainer_of(data, tmp_path, adversarial=adversarial, learning_rate=0.0)
    with torch.no_grad():
        for part in (trainer.learner.discriminator.classify, trainer.learner.discriminator.project):
            part.weight.zero_()
            part.bias.zero_()
    means = trainer.learner.with_sums(step(trainer))
    assert means["d_loss"] == pytest.approx((2 if adversarial == "bce" else 1) * 0.693147, abs=1e-5)
    assert health_warnings(means | {"d_loss": means["d_loss"] - 1e-4}, trainer.learner.limits, {}, {}) == {}


@pytest.mark.parametrize("weight", ["r1_weight", "r2_weight"])
def test_each_penalty_is_taken_on_every_fourth_step_alone(data, tmp_path, weight):
    def discriminator_after(number: int, value: float) -> list[Tensor]:
        trainer = trainer_of(data, tmp_path, **{"r1_weight": 0.0, "r2_weight": 0.0, weight: value})
        step(trainer, number)
        return weights(trainer, "discriminator")

    assert equal(discriminator_after(1, 100.0), discriminator_after(1, 0.0))
    assert not equal(discriminator_after(4, 100.0), discriminator_after(4, 0.0))


def test_penalties_on_real_and_on_generated_images_differ(data, tmp_path):
    after = []
    for settings in ({"r1_weight": 100.0}, {"r1_weight": 0.0, "r2_weight": 100.0}):
        trainer = trainer_of(data, tmp_path, **settings)
        step(trainer, 4)
        after.append(weights(trainer, "discriminator"))
    assert not equal(*after)


def test_readings_are_compared_with_the_truth_and_with_what_was_asked(data, tmp_path):
    trainer = trainer_of(
        data,
        tmp_path,
        regression_weight=2.0,
        class_weight=3.0,
        label_jitter=0.3,
        learning_rate=0.0,
        photometry_weight=0.0,
    )
    learner, state = trainer.learner, trainer.learner.noise.get_state()
    batch = trainer.batches.next_batch()
    terms, errors, counts = learner.step(batch, learner.variant("generator", 1))
    terms = dict(zip(learner.terms["generator"], (float(term.detach()) for term in terms), strict=True))
    num_attributes = len(trainer.config.attributes)
    assert errors.shape == counts.shape == (2 * num_attributes,)

    learner.noise.set_state(state)
    asked, _ = learner._asked(batch)
    with torch.no_grad():
        _, read = learner.discriminator.assess(batch.images, asked.condition)
    squared = (read[:, :num_attributes] - batch.scaled).square() * batch.known  # not asked.scaled
    assert terms["d_regression_real"] == pytest.approx((squared.sum() / batch.known.sum()).item(), rel=1e-4)
    torch.testing.assert_close(errors[num_attributes:], squared.sum(0), rtol=1e-4, atol=1e-6)
    entropy = torch.nn.functional.cross_entropy(read[:, num_attributes:], batch.classes)
    assert terms["d_class_real"] == pytest.approx(entropy.item(), rel=1e-4)
    means = learner.with_sums(terms)
    expected = terms["g_adversarial"] + 3 * terms["physics"] + 2 * terms["g_regression"] + 3 * terms["g_class"]
    assert means["g_loss"] == pytest.approx(expected, rel=1e-5)


def test_readings_teach_both_networks(data, tmp_path):
    after = {}
    for weight in (0.5, 50.0):
        trainer = trainer_of(data, tmp_path, regression_weight=weight, clip_norm=1e6)
        step(trainer)
        after[weight] = {name: weights(trainer, name) for name in ("generator", "discriminator", "predictor")}
    same = {name: equal(after[0.5][name], after[50.0][name]) for name in after[0.5]}
    assert same == {"generator": False, "discriminator": False, "predictor": True}


def test_the_discriminator_learns_to_read_real_images(data, tmp_path):
    trainer = trainer_of(
        data,
        tmp_path,
        regression_weight=10.0,
        width=8,
        pixel_noise=False,
        photometry_weight=0.0,
        attributes=("brightness", "ellipticity"),
        learning_rate=2e-3,
    )
    errors = []
    for number in range(120):
        if trainer.batches.is_over:
            trainer.batches.end_epoch()
            trainer.batches.start_epoch()
        errors.append(step(trainer, number)["d_regression_real"])
    # Who knows but the mean gets the variance.
    variance = sum(trainer._attribute_variance.values()) / 2
    assert sum(errors[-20:]) / 20 < 0.8 * variance


def test_both_networks_are_told_the_same_jittered_values(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path, label_jitter=0.1, attributes=("size", "redshift", "color"), learning_rate=0.0)
    learner, told = trainer.learner, []
    draw = learner.generator.forward
    monkeypatch.setattr(learner.generator, "forward", lambda z, c: (told.append(c.clone()), draw(z, c))[1])
    seen = watch(monkeypatch, learner)
    batch = trainer.batches.next_batch()
    true = batch.condition.clone()
    learner.step(batch, learner.variant("generator", 1))
    assert len(seen) == 3
    for _, condition in seen:
        assert torch.equal(condition, told[0])
    change = (told[0] - true)[:, 4:7]
    assert torch.equal(told[0][:, :4], true[:, :4]) and torch.equal(told[0][:, 7:], true[:, 7:])
    assert torch.equal(change != 0, batch.known > 0)  # what is unknown stays unknown


def test_jitter_has_the_standard_deviation_that_was_asked_for():
    # Votes are told in their own unit, of range 0.7.
    config = Config(width=4, latent_dim=8, label_jitter=0.1, attributes=("size", "vote_count"), device="cpu")
    learner = GanLearner(config, Engine.choose("cpu"))
    scaled = torch.full((64, 2), 0.5)
    batch = Batch(torch.zeros(64, 3, 64, 64), torch.zeros(64), torch.zeros(64, 8), scaled, torch.ones(64, 2))
    moves = torch.cat([learner._asked(batch)[0].scaled - scaled for _ in range(50)])
    assert moves.mean(0).abs().max() < 0.01
    assert moves[:, 0].std().item() == pytest.approx(0.1, rel=0.06)
    assert moves[:, 1].std().item() == pytest.approx(0.07, rel=0.06)


def test_real_and_generated_images_are_moved_and_the_physics_sees_them_as_they_are(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path, augment_discriminator="fixed", learning_rate=0.0)
    learner, drawn, measured = trainer.learner, [], []
    learner.augmentation.probability.fill_(1.0)
    draw, distribution = learner.generator.forward, learner.predictor.distribution
    monkeypatch.setattr(learner.generator, "forward", lambda z, c: drawn.append(draw(z, c)) or drawn[-1])
    monkeypatch.setattr(learner.predictor, "distribution", lambda i: (measured.append(i), distribution(i))[1])
    seen = watch(monkeypatch, learner)
    batch = trainer.batches.next_batch()
    learner.step(batch, learner.variant("generator", 1))
    (real, _), (fake, _), (judged, _) = seen
    for image, original in ((real, batch.images), (fake, drawn[0]), (judged, drawn[0])):
        assert (image - original).abs().flatten(1).amax(1).min() > 1e-4
    assert not torch.equal(fake, judged)  # moved anew
    assert measured[0] is drawn[0]


def test_adaptive_augmentation_follows_the_discriminator_and_is_saved(data, tmp_path):
    trainer = trainer_of(data, tmp_path, augment_discriminator="adaptive", r1_weight=0.0)
    with torch.no_grad():
        trainer.learner.discriminator.classify.bias.fill_(100.0)  # sure of everything
        trainer.learner.augmentation.mean_sign.fill_(0.7)
    place = trainer.learner.augmentation.probability.data_ptr()
    seen = [step(trainer)["augmented"] for _ in range(3)]
    assert seen == pytest.approx([16 / 100_000 * k for k in (1, 2, 3)])
    assert trainer.learner.augmentation.probability.data_ptr() == place
    state = trainer.learner.state_dict()
    other = trainer_of(data, tmp_path, augment_discriminator="adaptive", r1_weight=0.0)
    other.learner.load_state_dict({**state, "step": 3})
    assert differences(other.learner.state_dict()["augmentation"], state["augmentation"]) == []


def test_perceptual_loss_teaches_the_generator_alone(data, tmp_path):
    after = {}
    for weight in (0.0, 5.0):
        trainer = trainer_of(data, tmp_path, perceptual_weight=weight)
        terms = step(trainer)
        after[weight] = {name: weights(trainer, name) for name in ("generator", "discriminator", "predictor")}
    assert terms["perceptual"] > 0
    same = {name: equal(after[0.0][name], after[5.0][name]) for name in after[0.0]}
    assert same == {"generator": False, "discriminator": True, "predictor": True}


def test_vgg_features_come_from_the_file_and_resuming_wants_the_same(data, tmp_path, monkeypatch):
    class Small(Vgg16):
        """Ten multiplications instead of VGG-16's billions."""

        def __init__(self, seed):
            torch.nn.Module.__init__(self)
            self.conv = torch.nn.Conv2d(3, 4, 3)
            torch.nn.init.constant_(self.conv.weight, 0.1 * seed)
            self.requires_grad_(False)

        def maps(self, images):
            return [self.conv(images)]

    paths = []
    monkeypatch.setattr(Vgg16, "from_file", lambda path: paths.append(path) or Small(len(paths)))
    settings = {"perceptual_weight": 1.0, "perceptual": "vgg16", "vgg_weights": "weights.pth"}
    trainer = trainer_of(data, tmp_path, **settings)
    assert [path.name for path in paths] == ["weights.pth"]
    assert step(trainer)["perceptual"] != 0
    other = trainer_of(data, tmp_path, **settings)  # of another file
    with pytest.raises(UserError, match=r"weights\.pth holds other weights than those that this run began with"):
        other.learner.load_state_dict({**trainer.learner.state_dict(), "step": 1})


def test_a_missing_vgg_file_ends_the_start_in_a_sentence(data, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*missing\.pth with the weights of VGG-16"):
        trainer_of(data, tmp_path, perceptual_weight=1.0, perceptual="vgg16", vgg_weights=str(tmp_path / "missing.pth"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "change",
    [{}, {"generator": "frame", "batch_norm": False, "discriminator": "projection"}, {"adversarial": "bce"}],
    ids=["modern", "frame", "bce"],
)
def test_all_options_go_together(data, tmp_path, precision, change):
    trainer = make_trainer(data, tmp_path, **{**MODERN, **change, "precision": precision})
    trainer.start_phase("generator")
    networks = {name: trainer.learner.networks[name] for name in ("generator", "discriminator")}
    before = {
        name: {n: p.detach().clone() for n, p in network.named_parameters()} for name, network in networks.items()
    }
    for _ in range(4):  # the last one takes the penalties
        trainer.take_step(100)
    reading = trainer._steps.interval.read()
    assert reading.num_bad == 0
    assert set(trainer.learner.terms["generator"]) <= set(reading.means)
    assert {f"d_regression_{a}" for a in trainer.config.attributes} <= set(reading.means)
    still = {
        name
        for network, old in before.items()
        for name, parameter in networks[network].named_parameters()
        if torch.equal(parameter, old[name])
    }
    assert still <= {"classify.bias"}  # the level of the logits, which means nothing to pairs
    sampler = trainer.sampler()
    values = sampler.population.values[:3]
    together = sampler.generate(torch.tensor([0, 1, 2]), values, [5, 6, 7])
    alone = sampler.generate(torch.tensor([1]), values[1:2], [6])
    assert torch.equal(together[1:2], alone)
    again = sampler.generate(torch.tensor([1]), values[1:2], [7])
    assert not torch.equal(alone, again)


@pytest.mark.parametrize("size", [128, 256])
def test_larger_images_train_too(size):
    config = Config(**{**MODERN, "width": 4, "latent_dim": 8, "image_size": size})
    generator, discriminator = build_generator(config), build_discriminator(config)
    condition = torch.randn(2, config.condition_dim)
    logits, readings = discriminator.assess(generator(torch.randn(2, generator.noise_dim), condition), condition)
    assert readings.shape == (2, len(config.attributes) + 4)
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters())


def test_the_head_is_only_there_when_it_is_wanted(data, tmp_path):
    plain, reading = (trainer_of(data, tmp_path, regression_weight=w).learner.discriminator for w in (0.0, 1.0))
    assert isinstance(plain, ProjectionDiscriminator) and isinstance(reading, ProjectionDiscriminator)
    assert plain.read is None
    assert reading.read.out_features == 4 + 4


def test_what_no_picture_tells_is_not_asked_of_the_generator():
    terms = {term.name: term for term in GAN_TERMS}
    learner = SimpleNamespace(attributes=("size", "redshift"), ranks=SimpleNamespace(mean=lambda value: value))
    learner.regression = lambda *given: GanLearner.regression(learner, *given)
    asked = SimpleNamespace(scaled=torch.zeros(3, 2), known=torch.ones(3, 2))
    held = {}
    for name, read in (("g_regression", "readings"), ("d_regression_fake", "fake_readings")):
        readings = torch.ones(3, 6, requires_grad=True)
        seen = SimpleNamespace(**{read: readings}, asked=asked, reliability=torch.tensor([[1.0, 0.0]] * 3))
        terms[name].compute(learner, seen).backward()
        held[name] = (readings.grad != 0).any(0).tolist()[:2]
    # The discriminator itself learns to read everything: only so it knows what cannot be read.
    assert held == {"g_regression": [True, False], "d_regression_fake": [True, True]}
