"""From a checkpoint to galaxies: seeds, drawn attributes, support."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import Recorder, Run, plainly
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import Population
from galaxies.generation.build import build_generator, chunk_size, generator_weights
from galaxies.generation.exact_kernels import ExactKernels
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.solvers import Solver
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from gan_model import Generator
from tests.compute.test_cuda_graphs import Watch
from tests.compute.traced_step import TracedStep
from tests.conftest import make_trainer, needs_cuda


@pytest.fixture(scope="module")
def sampler() -> GalaxySampler:
    config = Config(width=8, latent_dim=16, pixel_noise=False, attributes=("size", "ellipticity"))
    torch.manual_seed(0)
    network = Generator(16, config.condition_dim, 8)
    # Fresh batch-norm statistics make every image grey; one pass in training mode spreads the values.
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randn(64, 16) * 4, torch.rand(64, config.condition_dim) * 4)
    classes = torch.arange(4).repeat_interleave(200)
    generator = torch.Generator().manual_seed(1)
    size = 0.1 + 0.1 * torch.rand(800, generator=generator)
    values = torch.stack([size, 4 * (size - 0.1)], 1)  # ellipticity follows from size
    return GalaxySampler(network, config, Population(classes, values), Engine.choose("cpu", "fp32"))


def request(count: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    classes = torch.arange(count) % 4
    return classes, torch.full((count, 2), 0.15), list(range(100, 100 + count))


def test_images_are_bytes_that_differ_by_seed(sampler):
    images = sampler.generate(*request(5))
    assert images.dtype == torch.uint8 and images.shape == (5, 3, 64, 64)
    classes, values, _ = request(2)
    first, second = sampler.generate(classes[:1].repeat(2), values, [1, 2])
    assert (first.int() - second.int()).abs().max() > 8


def one_by_one(sampler: GalaxySampler, count: int, size: int) -> torch.Tensor:
    classes, values, seeds = request(count)
    rows = [slice(start, start + size) for start in range(0, count, size)]
    return torch.cat([sampler.generate(classes[r], values[r], seeds[r]) for r in rows])


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 39])
def test_image_does_not_depend_on_the_batch(sampler, size):
    assert torch.equal(one_by_one(sampler, 40, size), sampler.generate(*request(40)))


@pytest.fixture(scope="module", params=[("frame", 32), ("frame", 64), ("transposed", 64), ("resize", 32)])
def full_size(request) -> GalaxySampler:
    generator, width = request.param
    return new_sampler(Config(width=width, generator=generator, attributes=("size", "ellipticity")), "cpu")


def new_sampler(config: Config, device: str) -> GalaxySampler:
    torch.manual_seed(1)
    engine = Engine.choose(device, "fp32")
    network = engine.prepare(build_generator(config))
    return GalaxySampler(network, config, Population(torch.zeros(3, dtype=torch.int64), torch.rand(3, 2)), engine)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_batch_does_not_show_in_networks_of_the_usual_size(full_size, size):
    assert torch.equal(one_by_one(full_size, 11, size), full_size.generate(*request(11)))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_number_of_threads_does_not_show(full_size, threads):
    before = torch.get_num_threads()
    expected = full_size.generate(*request(11))
    torch.set_num_threads(threads)
    try:
        assert torch.equal(full_size.generate(*request(11)), expected)
    finally:
        torch.set_num_threads(before)


def test_several_callers_at_once(sampler):
    expected, found = sampler.generate(*request(40)), {}

    def call(number: int) -> None:
        found[number] = one_by_one(sampler, 40, 5 + number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all(torch.equal(images, expected) for images in found.values())


@pytest.mark.parametrize("count", [1, 16, 33, 65])
def test_way_of_an_accelerator_in_blocks(sampler, monkeypatch, count):
    expected = sampler.generate(*request(count))
    monkeypatch.setattr(sampler, "block", 32)  # two chunks
    monkeypatch.setattr(sampler, "blocks_ahead", 1)
    monkeypatch.setattr(sampler, "_on_cores", sampler._on_accelerator)
    for noise_on_device in (False, True):
        monkeypatch.setattr(sampler, "_noise_on_device", noise_on_device)
        # Here the threads share each chunk, so that a last bit may differ.
        assert (sampler.generate(*request(count)).int() - expected.int()).abs().max() <= 1


@pytest.fixture(params=["GAN", "diffusion"])
def recording(request) -> GalaxySampler:
    """A sampler that draws as on CUDA, noise and graphs included, as far as a CPU can do so."""
    diffusion = {"diffusion": True, "unet_blocks": 1, "solver_steps": 4}
    settings = {"GAN": {"latent_dim": 8}, "diffusion": diffusion}[request.param]
    sampler = new_sampler(Config(attributes=("size", "ellipticity"), width=4, **settings), "cpu")
    if request.param == "diffusion":  # the last layers of a new one are zero
        torch.manual_seed(2)
        for parameter in sampler.network.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return sampler


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    monkeypatch.setattr("galaxies.compute.recorded_functions.RecordedStep", TracedStep)
    return Recorder(Engine(torch.device("cpu"), bf16=False, graphs=True))


def draw_as_on_cuda(sampler: GalaxySampler, run: Run) -> None:
    sampler._on_cores, sampler._noise_on_device, sampler._run = sampler._on_accelerator, True, run


def test_drawing_by_graphs_is_drawing_on_cores(recording, recorder):
    expected = recording.generate(*request(23))
    draw_as_on_cuda(recording, recorder)
    for _ in range(2):
        found = recording.generate(*request(23))
        assert (found.int() - expected.int()).abs().max() <= 1
        assert (found[:-1].int() - found[1:].int()).abs().amax((1, 2, 3)).min() > 8  # different ones
    assert recorder.num_graphs == (3 if recording.config.diffusion else 2)
    assert torch.equal(one_by_one(recording, 23, 1), found)


def test_graphs_follow_weights_and_solver(recording, recorder):
    draw_as_on_cuda(recording, recorder)
    before = recording.generate(*request(23))
    with torch.no_grad():
        for parameter in recording.network.parameters():
            parameter.mul_(1.1)
    after = recording.generate(*request(23))
    assert not torch.equal(after, before)
    recording._run = plainly
    assert torch.equal(recording.generate(*request(23)), after)
    if recording.config.diffusion:
        for solver in (Solver("ddpm", 5), Solver("dpm", 4, 2.0), Solver("ddim", 3)):
            recording.solver, recording._run = solver, plainly
            expected = recording.generate(*request(3))
            recording._run = recorder
            for _ in range(4):
                assert torch.equal(recording.generate(*request(3)), expected)


def test_drawing_never_waits_for_the_device(recording):
    draw_as_on_cuda(recording, plainly)
    recording.draw(*request(3))  # the first one fills what is kept from then on
    classes, values, seeds = request(23)
    told = condition_vector(classes, values, recording.config)  # on the CPU wherever the rest is
    with Watch() as watch:
        recording._on_accelerator(np.array(seeds), told)
    assert watch.found == ["lift_fresh"]  # of the seeds, on the host


@needs_cuda
@pytest.mark.parametrize(("generator", "width"), [("frame", 64), ("transposed", 64)])
def test_batch_does_not_show_on_a_gpu(generator, width):
    config = Config(width=width, generator=generator, attributes=("size", "ellipticity"))
    sampler = new_sampler(config, "cuda")
    count = 17 * chunk_size(config, sampler.engine.device) + 5  # more than one block
    together = sampler.generate(*request(count))
    for size in (999, 4096):
        assert torch.equal(one_by_one(sampler, count, size), together)
    classes, values, seeds = request(count)
    for k in (0, 1, 255, 256, count - 1):
        assert torch.equal(sampler.generate(classes[k : k + 1], values[k : k + 1], seeds[k : k + 1])[0], together[k])
    cpu = new_sampler(config, "cpu").generate(classes[:8], values[:8], seeds[:8])
    assert (cpu.int() - together[:8].int()).abs().max() <= 1  # the same noise, rounded differently


@pytest.mark.parametrize(
    ("width", "image_size", "device", "expected"),
    [
        (32, 64, "cpu", 4),
        (64, 64, "cpu", 2),
        (32, 256, "cpu", 1),
        (4, 64, "cpu", 16),
        (64, 64, "cuda", 64),
        (64, 128, "cuda", 16),
        (64, 256, "mps", 8),
    ],
)
def test_chunks_fit_the_network_and_the_device(width, image_size, device, expected):
    assert chunk_size(Config(width=width, image_size=image_size), torch.device(device)) == expected


def test_images_are_contiguous_planes(sampler):
    assert sampler.generate(*request(3)).is_contiguous()


def test_changing_one_attribute_changes_the_image(sampler):
    classes, values, seeds = torch.zeros(2, dtype=torch.int64), torch.tensor([[0.1, 0.2], [0.1, 0.6]]), [5, 5]
    first, second = sampler.generate(classes, values, seeds)
    assert not torch.equal(first, second)


def test_generating_leaves_the_network_in_its_mode_and_draws_no_global_random_numbers(sampler):
    sampler.network.train()
    before = torch.get_rng_state()
    statistics = [b.clone() for b in sampler.network.buffers()]
    sampler.generate(*request(3))
    assert sampler.network.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(statistics, sampler.network.buffers(), strict=True))


def test_unset_attributes_come_from_one_real_galaxy(sampler):
    nothing = torch.full((2,), math.nan)
    drawn = torch.stack([sampler.complete(1, nothing, seed) for seed in range(50)])
    torch.testing.assert_close(drawn[:, 1], 4 * (drawn[:, 0] - 0.1))
    assert len(torch.unique(drawn[:, 0])) > 20


def test_drawing_respects_what_is_set(sampler):
    drawn = torch.stack([sampler.complete(0, torch.tensor([0.15, math.nan]), seed) for seed in range(30)])
    assert (drawn[:, 0] == 0.15).all()
    # The 8 nearest of 200 galaxies lie within 0.004 or so of 0.15, and their ellipticity within 0.016 of 0.2.
    assert (drawn[:, 1] - 0.2).abs().max() < 0.03


def test_drawing_is_fixed_by_the_seed(sampler):
    nothing = torch.full((2,), math.nan)
    assert torch.equal(sampler.complete(2, nothing, 9), sampler.complete(2, nothing, 9))


def test_drawing_together_is_drawing_one_by_one(sampler):
    classes = torch.arange(60) % 4
    requested = torch.full((60, 2), math.nan)
    requested[::3, 0] = torch.linspace(0.1, 0.2, 20)
    requested[1::6] = torch.tensor([math.nan, 0.2])  # alike
    requested[2::6] = torch.tensor([0.15, 0.1])  # nothing to draw
    seeds = list(range(1000, 1060))
    singly = torch.stack([sampler.complete(int(c), r, s) for c, r, s in zip(classes, requested, seeds, strict=True)])
    assert torch.equal(sampler.complete_all(classes, requested, seeds), singly)
    assert torch.equal(singly[2::6], requested[2::6])
    assert not singly.isnan().any()


@pytest.mark.parametrize("table", [1, 2**18])
def test_drawing_takes_each_of_the_nearest_alike(sampler, monkeypatch, table):
    monkeypatch.setattr("galaxies.datasets.population._TABLE_SIZE", table)
    count = 4000
    requested = torch.tensor([[0.15, math.nan], [0.12, math.nan]]).repeat(count // 2, 1)
    drawn = sampler.complete_all(torch.zeros(count, dtype=torch.int64), requested, range(count))
    members = sampler.population.members(0)
    for first, size in ((0, 0.15), (1, 0.12)):
        nearest = members[(members[:, 0] - size).abs().argsort()[:8], 1]
        found, counts = drawn[first::2, 1].unique(return_counts=True)
        assert torch.equal(found, nearest.sort().values)
        assert (counts - count / 16).abs().max() < 75  # 5 standard deviations


def test_drawing_prefers_galaxies_whose_value_is_known():
    known = torch.stack([torch.linspace(0.4, 0.6, 8), torch.full((8,), 2.0)], 1)
    values = torch.cat([torch.tensor([[math.nan, 1.0]]).repeat(8, 1), known])
    population = Population(torch.zeros(16, dtype=torch.int64), values)
    drawn = population.draw(torch.zeros(20, dtype=torch.int64), torch.tensor([[0.9, math.nan]] * 20), range(20))
    assert (drawn[:, 1] == 2).all()


def test_unknown_values_of_the_drawn_galaxy_stay_unknown():
    population = Population(torch.zeros(20, dtype=torch.int64), torch.tensor([[0.1, math.nan]]).repeat(20, 1))
    (drawn,) = population.draw(torch.tensor([0]), torch.full((1, 2), math.nan), [0])
    assert drawn[0] == pytest.approx(0.1) and math.isnan(drawn[1])


def test_a_class_without_members_leaves_the_request_as_it_is(sampler):
    population = Population(torch.zeros(3, dtype=torch.int64), torch.rand(3, 2))
    (drawn,) = population.draw(torch.tensor([2]), torch.tensor([[0.2, math.nan]]), [0])
    assert drawn[0] == pytest.approx(0.2) and math.isnan(drawn[1])


def test_supported_range_is_the_central_98_percent():
    population = Population(torch.zeros(101, dtype=torch.int64), torch.arange(101.0)[:, None])
    assert population.supported_range(0, 0) == pytest.approx((1.0, 99.0))
    assert population.supported_range(1, 0) is None


def test_unsupported_requests_name_attribute_and_range(sampler):
    assert sampler.unsupported(0, torch.tensor([0.15, math.nan])) == []
    (sentence,) = sampler.unsupported(0, torch.tensor([0.9, math.nan]))
    assert sentence.startswith("size 0.9 is outside the range 0.1")
    assert "frame widths that spiral galaxies" in sentence
    first, together = sampler.unsupported(0, torch.tensor([0.9, 0.2]))
    assert first == sentence
    assert together.startswith(
        "no spiral galaxy in the training data is like size 0.9 and ellipticity 0.2 together: the"
    )


def test_unsupported_requests_are_found_where_each_attribute_is_supported(sampler):
    values = torch.tensor([[0.12, 0.35]])  # of galaxies whose ellipticity is 4 (size - 0.1)
    assert sampler.is_within_ranges(torch.tensor([0]), values).all()
    (sentence,) = sampler.unsupported(0, values[0])
    assert sentence.startswith("no spiral galaxy in the training data is like size 0.12 and ellipticity 0.35 together")
    assert not sampler.supports(torch.tensor([0]), values).any()


def test_warnings_count_what_is_unlike_real_galaxies(sampler, monkeypatch):
    sizes = torch.tensor([0.15, 0.15, 0.45, 0.46, 0.45])
    values = torch.stack([sizes, torch.full((5,), math.nan)], 1)
    requests = Requests(torch.zeros(5, dtype=torch.int64), values, range(5))
    first, second, count = requests.warnings(sampler)
    assert first.startswith("size 0.45 is outside") and second.startswith("size 0.46 is outside")
    assert count.startswith("of 5 requests 0 are unusual among the galaxies of the training data and 3 are invented")
    assert requests.part(0, 2).warnings(sampler) == [] and len(requests.part(0, 3).warnings(sampler)) == 1
    assert requests.warnings(sampler, limit=1)[0] == first and len(requests.warnings(sampler, limit=1)) == 1
    monkeypatch.setattr("galaxies.generation.requests._BLOCK", 2)
    assert requests.warnings(sampler) == [first, second, count]


def test_a_class_without_real_galaxies_is_unsupported(sampler):
    empty = Population(torch.zeros(3, dtype=torch.int64), torch.rand(3, 2))
    other = GalaxySampler(sampler.network, sampler.config, empty, sampler.engine)
    assert other.unsupported(2, torch.full((2,), math.nan)) == ["there is no merger galaxy in the training data"]


def test_support_of_many_requests_is_that_of_each(sampler):
    values = torch.tensor([[0.15, math.nan], [0.9, 0.2], [math.nan, math.nan], [0.15, 0.9], [math.nan, -0.1]])
    population = Population(torch.zeros(50, dtype=torch.int64), torch.linspace(0.1, 0.2, 50)[:, None] * torch.ones(2))
    population.values[:, 1] = math.nan  # known for no galaxy
    for some in (sampler, GalaxySampler(sampler.network, sampler.config, population, sampler.engine)):
        for index in range(4):
            expected = [not some.unsupported(index, row) for row in values]
            assert some.supports(torch.full((5,), index), values).tolist() == expected


def test_averaged_weights_are_preferred():
    state = {"ema": {"num_averaged": 3, "w": 1}, "networks": {"generator": {"w": 2}}}
    assert generator_weights(state) == {"w": 1}
    assert generator_weights({**state, "ema": None}) == {"w": 2}


def test_checkpoint_round_trip_gives_the_trainer_images(trained, data):
    first = GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/latest.pt", "cpu")
    again = GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/epoch_0002.pt", "cpu")
    classes, values = torch.tensor([0, 3]), torch.tensor([[0.1, 0.3, 0.2, math.nan]]).repeat(2, 1)
    assert torch.equal(first.generate(classes, values, [1, 2]), again.generate(classes, values, [1, 2]))


def test_missing_checkpoint_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        GalaxySampler.from_checkpoint(tmp_path / "no.pt")


def test_guidance_that_the_training_made_no_room_for_is_refused(data, tmp_path):
    settings = {"diffusion": True, "unet_blocks": 1, "solver_steps": 2}
    for number, (given, solver, sentence) in enumerate(
        [
            ({"condition_dropout": 0.0}, {"guidance": 2.0}, "was trained without condition dropout"),
            ({"attributes": ("redshift",)}, {"photometry": 1.0}, "knows no attribute that photometry measures"),
        ]
    ):
        trainer = make_trainer(data, tmp_path / str(number), **settings, **given)
        trainer.start_phase("generator")
        trainer.take_step(10)
        path = tmp_path / f"{number}.pt"
        save_checkpoint(path, trainer.state_dict())
        GalaxySampler.from_checkpoint(path, "cpu")
        with pytest.raises(UserError, match=sentence):
            GalaxySampler.from_checkpoint(path, "cpu", **solver)


def test_exact_kernels_last_until_the_last_one_leaves():
    kernels, cudnn = ExactKernels(), torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with kernels:
        with kernels:
            pass
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (False, True, False)
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before


def test_settings_of_another_release_are_an_error_that_names_the_file(trained):
    path = trained / "checkpoints/tiny/latest.pt"
    state = load_checkpoint(path)
    state["config"] = {name: value for name, value in state["config"].items() if name != "decay"}
    with pytest.raises(UserError, match=r"latest\.pt cannot be used: the settings decay are not those of this release"):
        GalaxySampler.from_state(state, path, "cpu")
