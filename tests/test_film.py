"""FiLM and the conditioned model against plain `torch.nn` layers with the same weights."""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tunelater.distributions import Distribution, LambdaSpace, Linear, Uniform
from tunelater.film import FiLM, LossConditional, Place, Stage, StageFiLM, Start
from tunelater.losses import FAMILIES, Hyperparameter, loss_family
from tunelater.problems import InputError

VS_SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))
SPACES: dict[str, LambdaSpace] = {
    "vs": VS_SPACE,
    "focal": LambdaSpace(alpha=Uniform(0.1, 0.9), phi=Uniform(0, 3)),
    "weighted_cross_entropy": LambdaSpace(omega=Uniform(0, 1)),
    "ldam": LambdaSpace(max_m=Uniform(0, 1), s=Uniform(1, 30)),
}
N, CHANNELS = 20, 8


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Weights as after training: none is zero or equal to another, whatever the start was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)


def model_over(
    space: LambdaSpace,
    *,
    n_classes: int = 2,
    head_bias: bool = True,
    film: bool = True,
    start: Start = "paper",
    rescale: bool = False,
    bias: bool = True,
    place: Place = "features",
) -> LossConditional:
    """A small model in float64 with random weights."""
    channels = CHANNELS if place == "features" else n_classes
    conditioning = FiLM(space, channels, hidden=16, start=start, rescale=rescale, bias=bias) if film else None
    head = nn.Linear(CHANNELS, n_classes, bias=head_bias)
    model = LossConditional(nn.Linear(3, CHANNELS), conditioning, head, place=place)
    randomise(model)
    return model.double()


def features(n: int = N) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, CHANNELS)))


def drawn(space: LambdaSpace, n: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(v) for name, v in space.sample(n, np.random.default_rng(1)).items()}


def at(lam: dict[str, Tensor], i: int) -> dict[str, float]:
    return {name: float(values[i]) for name, values in lam.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Size
# ---------------------------------------------------------------------------------------------------------------------


def test_parameter_count_is_the_papers() -> None:
    """8,448 for a two-dimensional lambda and 64 channels: one branch, without biases (Section 5.1)."""
    assert n_parameters(FiLM(VS_SPACE, 64, bias=False, branches=("scale",))) == 8_448
    assert n_parameters(FiLM(VS_SPACE, 64, bias=False)) == 2 * 8_448


def test_parameter_count_of_the_default_is_that_of_two_networks_with_biases() -> None:
    network = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 64))
    assert n_parameters(FiLM(VS_SPACE, 64)) == 2 * n_parameters(network) == 17_280


def test_a_point_mass_is_not_fed() -> None:
    space = LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))
    film = FiLM(space, 64, hidden=5, bias=False)
    assert film.names == ("tau",)
    assert n_parameters(film) == 2 * (5 + 5 * 64)
    for gamma in (0.1, 0.3):
        torch.testing.assert_close(film({"gamma": gamma, "tau": 1.0}), film({"gamma": 0.1, "tau": 1.0}))
    sigma, _ = film({"tau": 1.0})
    other, _ = film({"tau": 2.0})
    assert not torch.allclose(sigma, other)


# ---------------------------------------------------------------------------------------------------------------------
# What it computes
# ---------------------------------------------------------------------------------------------------------------------


def literal_film(film: FiLM, lam: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each branch as its own Linear, ReLU, Linear with FiLM's weights."""
    inputs = torch.stack([lam[name] for name in film.names], dim=-1)
    out = {}
    for i, branch in enumerate(film.branches):
        _, d, hidden = film.weight_in.shape
        channels = film.weight_out.shape[-1]
        first = nn.Linear(d, hidden, bias=film.bias_in is not None, dtype=inputs.dtype)
        second = nn.Linear(hidden, channels, bias=film.bias_out is not None, dtype=inputs.dtype)
        with torch.no_grad():
            first.weight.copy_(film.weight_in[i].T)
            second.weight.copy_(film.weight_out[i].T)
            if film.bias_in is not None and film.bias_out is not None:
                first.bias.copy_(film.bias_in[i, 0])
                second.bias.copy_(film.bias_out[i, 0])
        out[branch] = second(torch.relu(first(inputs))).detach()
    return out


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("branches", [("scale", "shift"), ("shift", "scale"), ("scale",), ("shift",)])
def test_film_equals_separate_networks_of_linear_layers(bias: bool, start: Start, branches: Sequence) -> None:
    film = FiLM(VS_SPACE, CHANNELS, hidden=16, bias=bias, start=start, branches=branches)
    randomise(film)
    film.double()
    lam = drawn(VS_SPACE, N)
    expected = literal_film(film, lam)
    sigma, mu = film(lam)
    identity = 1 if start == "identity" else 0  # the paper's sigma is used as it comes out
    scale = expected["scale"] + identity if "scale" in branches else torch.ones(N, CHANNELS, dtype=torch.float64)
    shift = expected.get("shift", torch.zeros(N, CHANNELS, dtype=torch.float64))
    torch.testing.assert_close(sigma, scale, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mu, shift, rtol=1e-12, atol=1e-12)


def test_fresh_weights_have_the_spread_of_linear_layers() -> None:
    film, linear = FiLM(VS_SPACE, 2_000), (nn.Linear(2, 128), nn.Linear(128, 2_000))
    for ours, theirs in [
        (film.weight_in, linear[0].weight),
        (film.bias_in, linear[0].bias),
        (film.weight_out, linear[1].weight),
        (film.bias_out, linear[1].bias),
    ]:
        assert ours is not None
        bound = 1 / np.sqrt(2 if ours.shape[-1] == 128 else 128)
        assert float(ours.detach().abs().max()) <= bound
        assert float(ours.detach().std()) == pytest.approx(float(theirs.detach().std()), rel=0.15)


@pytest.mark.parametrize("bias", [True, False])
def test_identity_start_leaves_the_head_as_it_is(bias: bool) -> None:
    film = FiLM(VS_SPACE, CHANNELS, start="identity", bias=bias)
    model = LossConditional(nn.Identity(), film, nn.Linear(CHANNELS, 2))
    z = features().float()
    for lam in ({"gamma": 0.0, "tau": 0.0}, {"gamma": 0.3, "tau": 3.0}, drawn(VS_SPACE, N)):
        sigma, mu = film(lam)
        assert bool((sigma == 1).all())
        assert bool((mu == 0).all())
        torch.testing.assert_close(model(z, lam), model.head(z))


def test_paper_start_depends_on_lambda_from_the_beginning() -> None:
    model = LossConditional(nn.Identity(), FiLM(VS_SPACE, CHANNELS), nn.Linear(CHANNELS, 2))
    z = features().float()
    apart = model(z, {"gamma": 0.0, "tau": 0.0}) - model(z, {"gamma": 0.3, "tau": 3.0})
    assert float(apart.detach().abs().max()) > 1e-3


def test_identity_start_learns() -> None:
    """The last layer starts at zero, yet gets a gradient; the first layer follows once it has moved."""
    model = LossConditional(nn.Identity(), FiLM(VS_SPACE, CHANNELS, start="identity"), nn.Linear(CHANNELS, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        model(features().float(), {"gamma": 0.1, "tau": 2.0}).square().sum().backward()
        assert model.film is not None
        assert float(model.film.weight_out.grad.abs().sum()) > 0
        assert (float(model.film.weight_in.grad.abs().sum()) > 0) == (step == 1)
        optimizer.step()


def test_rescale_maps_each_interval_to_the_unit_interval() -> None:
    space = LambdaSpace(gamma=Linear(0.1, 0.3, 5), phi=7.0, tau=Linear(1, 4, 0.33))
    lam = {"tau": torch.tensor([1.0, 4.0, 2.5]), "gamma": torch.tensor([0.1, 0.3, 0.25])}
    torch.testing.assert_close(
        FiLM(space, 2, rescale=True).vector(lam), torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.75, 0.5]])
    )
    torch.testing.assert_close(FiLM(space, 2).vector(lam), torch.tensor([[0.1, 1.0], [0.3, 4.0], [0.25, 2.5]]))
    torch.testing.assert_close(
        FiLM(space, 2, rescale=True).vector({"tau": 2.5, "gamma": 0.25}), torch.tensor([[0.75, 0.5]])
    )


# ---------------------------------------------------------------------------------------------------------------------
# The conditioned model
# ---------------------------------------------------------------------------------------------------------------------


PLACES: tuple[Place, ...] = ("features", "logits")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize("options", [{}, {"start": "identity"}, {"rescale": True}, {"bias": False}])
def test_logits_are_the_head_of_modulated_features_or_modulated(
    place: Place, n_classes: int, head_bias: bool, options: dict
) -> None:
    model = model_over(VS_SPACE, n_classes=n_classes, head_bias=head_bias, place=place, **options)
    assert model.film is not None
    z, lam = features(), drawn(VS_SPACE, N)
    together = model.logits(z, lam)
    assert together.shape == (N, n_classes)
    for i in range(N):
        sigma, mu = model.film(at(lam, i))
        expected = model.head(sigma * z + mu) if place == "features" else sigma * model.head(z) + mu
        # One lambda for all, folded into the head.
        torch.testing.assert_close(model.logits(z, at(lam, i)), expected, rtol=1e-6, atol=1e-6)
        # One lambda a sample.
        torch.testing.assert_close(together[i], expected[i], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"start": "identity"}, {"rescale": True}, {"head_bias": False}, {"place": "logits"}]
)
def test_folded_and_per_sample_logits_have_the_same_gradients(options: dict) -> None:
    lam = {"gamma": 0.21, "tau": 1.3}
    gradients = []
    for values in (lam, {name: torch.full((N,), value) for name, value in lam.items()}):
        model = model_over(VS_SPACE, **options)
        z = features().requires_grad_()
        model.logits(z, values).sin().sum().backward()
        gradients.append([z.grad, *(p.grad for p in (*model.head.parameters(), *model.film.parameters()))])
    for folded, per_sample in zip(*gradients, strict=True):
        assert folded is not None
        assert float(folded.abs().sum()) > 0
        torch.testing.assert_close(folded, per_sample, rtol=1e-6, atol=1e-6)


def test_a_hyperparameter_that_is_the_same_for_all_samples_may_stay_a_float() -> None:
    model, z, lam = model_over(VS_SPACE), features(), drawn(VS_SPACE, N)
    mixed: dict[str, Hyperparameter] = {"gamma": 0.2, "tau": lam["tau"]}
    spelled_out = {"gamma": torch.full((N,), 0.2), "tau": lam["tau"]}
    torch.testing.assert_close(model.logits(z, mixed), model.logits(z, spelled_out))


def test_forward_is_logits_of_features() -> None:
    model, lam = model_over(VS_SPACE), {"gamma": 0.1, "tau": 1.0}
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(N, 3)))
    torch.testing.assert_close(model.features(x), model.trunk(x))
    torch.testing.assert_close(model(x, lam), model.logits(model.features(x), lam))


def test_without_film_the_model_ignores_lambda() -> None:
    model, z = model_over(VS_SPACE, film=False), features()
    for lam in ({}, {"gamma": 0.1, "tau": 1.0}, drawn(VS_SPACE, N)):
        torch.testing.assert_close(model.logits(z, lam), model.head(z))


@pytest.mark.parametrize("place", PLACES)
def test_autocast_to_bfloat16_runs_both_paths(place: Place) -> None:
    model, z = model_over(VS_SPACE, place=place).float(), features().float()
    lam = {"gamma": 0.21, "tau": 1.3}
    exact = model.logits(z, lam)
    for values in (lam, {name: torch.full((N,), value) for name, value in lam.items()}):
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.logits(z, values)
        torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05 * float(exact.detach().abs().max()))


# ---------------------------------------------------------------------------------------------------------------------
# The head at many lambdas
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("place", ["features", "logits", None])
@pytest.mark.parametrize("head_bias", [True, False])
@pytest.mark.parametrize("start", ["paper", "identity"])
def test_margins_at_many_lambdas_are_one_linear_map(
    name: str, place: Place | None, head_bias: bool, start: Start
) -> None:
    space, z = SPACES[name], features()
    options = {"film": False} if place is None else {"place": place}
    model = model_over(space, head_bias=head_bias, start=start, rescale=start == "identity", **options)
    lambdas = {key: torch.from_numpy(values) for key, values in space.grid(3).items()}
    n_lambdas = len(next(iter(lambdas.values())))
    for family in (loss_family(name, (20, 1)), loss_family(name, (3, 7)), None):
        weight, bias = model.margins(lambdas, family)
        assert weight.shape == (n_lambdas, CHANNELS)
        assert bias.shape == (n_lambdas,)
        margins = z @ weight.T + bias
        for i in range(n_lambdas):
            logits = model.logits(z, at(lambdas, i))
            expected = logits[:, 1] - logits[:, 0] if family is None else family.margin(logits, **at(lambdas, i))
            torch.testing.assert_close(margins[:, i], expected, rtol=1e-6, atol=1e-6)


def test_margins_of_a_fixed_lambda_and_of_a_loss_without_one() -> None:
    space = LambdaSpace(gamma=0.2, tau=1.0)
    model, z = model_over(space, film=False), features()
    family = loss_family("vs", (20, 1))
    weight, bias = model.margins({name: torch.tensor([d.mean]) for name, d in space.items()}, family)
    torch.testing.assert_close((z @ weight.T + bias)[:, 0], family.margin(model.head(z), gamma=0.2, tau=1.0))
    weight, bias = model.margins({}, loss_family("cross_entropy", (20, 1)))
    torch.testing.assert_close((z @ weight.T + bias)[:, 0], model.head(z) @ torch.tensor([-1.0, 1.0]).double())


# ---------------------------------------------------------------------------------------------------------------------
# After every stage of the trunk
# ---------------------------------------------------------------------------------------------------------------------

STAGES = (Stage("1", 6), Stage("4", CHANNELS))


class Pause(nn.Module):
    """What a test wants to happen in the middle of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], object] = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        self.then()
        return x


def staged_model(start: Start = "paper", stages: Sequence[Stage] = STAGES) -> LossConditional:
    """Two hidden layers, FiLM after each; float64, random weights."""
    trunk = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), Pause(), nn.Linear(6, CHANNELS), nn.ReLU())
    model = LossConditional(
        trunk, None, nn.Linear(CHANNELS, 2), StageFiLM(VS_SPACE, stages, hidden=16, start=start, rescale=True)
    )
    randomise(model)
    return model.double()


def inputs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(size=(N, 3)))


def test_stages_are_modulated_one_after_the_other() -> None:
    model, x, lam = staged_model(), inputs(), drawn(VS_SPACE, N)
    assert model.stages is not None
    first, second = model.stages
    together = model(x, lam)
    for i in range(N):
        (sigma1, mu1), (sigma2, mu2) = first(at(lam, i)), second(at(lam, i))
        z = sigma1 * torch.tanh(model.trunk[0](x)) + mu1
        expected = model.head(sigma2 * torch.relu(model.trunk[3](z)) + mu2)
        torch.testing.assert_close(model(x, at(lam, i)), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together[i], expected[i], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model.features(x, at(lam, i)) @ model.head.weight.T + model.head.bias, expected)
    margins = model.features(x, at(lam, 0)) @ model.margins({}, None)[0].T + model.margins({}, None)[1]
    torch.testing.assert_close(margins[:, 0], model(x, at(lam, 0)) @ torch.tensor([-1.0, 1.0]).double())


@pytest.mark.parametrize(("axis", "shape"), [(1, (N, 6, 4, 5)), (-1, (N, 4, 5, 6)), (-1, (N, 4, 6)), (1, (N, 6))])
def test_channels_are_where_the_stage_says(axis: int, shape: tuple[int, ...]) -> None:
    film = StageFiLM(VS_SPACE, [Stage("0", 6, axis)]).double()
    randomise(film)
    z, lam = torch.from_numpy(np.random.default_rng(4).normal(size=shape)), drawn(VS_SPACE, N)
    together = film(nn.Sequential(nn.Identity()), z, lam).movedim(axis, -1)
    for i in range(N):
        sigma, mu = film[0](at(lam, i))
        expected = z.movedim(axis, -1) * sigma + mu
        torch.testing.assert_close(together[i], expected[i])
        torch.testing.assert_close(film(nn.Sequential(nn.Identity()), z, at(lam, i)).movedim(axis, -1), expected)


def test_gradients_reach_every_weight_through_the_stages() -> None:
    model = staged_model("identity")
    model(inputs(), {"gamma": 0.1, "tau": 2.0}).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0, name


def test_a_copy_and_a_bare_trunk_carry_nothing_of_a_pass_along() -> None:
    model, x, lam = staged_model(), inputs(), {"gamma": 0.1, "tau": 2.0}
    trunk = copy.deepcopy(model.trunk)
    before = model(x, lam)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.stages.parameters():
            parameter.zero_()
    model.trunk[2].then = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(x, lam)
    model.trunk[2].then = lambda: None
    torch.testing.assert_close(model(x, lam), before)
    torch.testing.assert_close(model.trunk(x), trunk(x))
    torch.testing.assert_close(twin(x, lam), twin.head.bias.expand(N, 2))


def test_passes_in_two_threads_do_not_see_each_others_lambda() -> None:
    model, x = staged_model().eval(), inputs()
    lams = ({"gamma": 0.0, "tau": 0.0}, {"gamma": 0.3, "tau": 3.0})
    alone = [model(x, lam).detach() for lam in lams]
    other: list[Tensor] = []

    def in_another_thread() -> None:
        model.trunk[2].then = lambda: None
        with ThreadPoolExecutor(1) as pool:
            other.append(pool.submit(model, x, lams[1]).result().detach())

    model.trunk[2].then = in_another_thread
    torch.testing.assert_close([model(x, lams[0]).detach(), *other], alone)
    assert not torch.allclose(*alone)


def test_autocast_to_bfloat16_runs_through_stages() -> None:
    model, x, lam = staged_model("identity").float(), inputs().float(), {"gamma": 0.2, "tau": 1.0}
    exact = model(x, lam)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, lam)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05 * float(exact.detach().abs().max()))


# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [(), (Stage("1", 6), Stage("1", 6))])
def test_stages_need_to_be_there_and_differ(stages: Sequence[Stage]) -> None:
    with pytest.raises(InputError, match="needs stages of different names, got "):
        StageFiLM(VS_SPACE, stages)


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        (Stage("layer9", 6), r"the trunk has no modules \['layer9'\]"),
        (Stage("1", 7), r"stage '1' should give 7 channels on axis 1, got \(20, 6\)"),
        (Stage("unused", 6), r"a pass calls once; of this trunk it called \{'unused': 0\} times"),
        (Stage("twice", 6), r"a pass calls once; of this trunk it called \{'twice': 2\} times"),
        (Stage("two", 6), r"stage 'two' should give 6 channels on axis 1, got tuple"),
    ],
)
def test_stages_that_the_trunk_does_not_pass_as_told_are_refused(stage: Stage, problem: str) -> None:
    class Trunk(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[1](self[0](x))
            return self.two(self.twice(self.twice(x)))[0]

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    trunk = Trunk(nn.Linear(3, 6), nn.Tanh())
    trunk.unused, trunk.twice, trunk.two = nn.Identity(), nn.Identity(), Two()
    model = LossConditional(trunk, None, nn.Linear(6, 2), StageFiLM(VS_SPACE, [stage])).double()
    with pytest.raises(InputError, match=problem):
        model(inputs(), {"gamma": 0.1, "tau": 2.0})


def test_features_that_depend_on_lambda_need_it() -> None:
    with pytest.raises(InputError, match="depend on lambda; pass it"):
        staged_model().features(inputs())


@pytest.mark.parametrize("distributions", [{}, {"gamma": 0.1, "tau": 1.0}])
def test_a_space_without_a_varying_dimension_is_refused(distributions: dict[str, Distribution | float]) -> None:
    with pytest.raises(InputError, match=r"needs a hyperparameter that varies, got LambdaSpace.*leave FiLM out"):
        FiLM(LambdaSpace(**distributions), 8)


@pytest.mark.parametrize("branches", [(), ("sigma",), ("scale", "mu"), ("scale", "scale")])
def test_unknown_branches_are_refused(branches: Sequence) -> None:
    with pytest.raises(InputError, match="branches are 'scale' and 'shift', one or both"):
        FiLM(VS_SPACE, 8, branches=branches)


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(InputError, match="start is 'paper' or 'identity', got 'identiy'"):
        FiLM(VS_SPACE, 8, start="identiy")


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(InputError, match="place is 'features' or 'logits', got 'stages'"):
        LossConditional(nn.Identity(), FiLM(VS_SPACE, 2), nn.Linear(8, 2), place="stages")


def test_margins_of_three_classes_are_refused() -> None:
    with pytest.raises(InputError, match="a head of two classes, got 3"):
        model_over(VS_SPACE, n_classes=3).margins(drawn(VS_SPACE, 4), None)


def test_every_family_with_hyperparameters_is_tested_here() -> None:
    assert set(SPACES) == {name for name, family in FAMILIES.items() if family.hyperparameters}
