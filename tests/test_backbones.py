"""Any network as a trunk, and batches of any loader."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from tunelater import LambdaSpace, Linear, LossConditional, loss_family, score
from tunelater.backbones import PooledTrunk
from tunelater.config import Config, FiLMConfig, ModelConfig
from tunelater.data.splits import TensorSplit
from tunelater.film import Stage, StageFiLM
from tunelater.models import build
from tunelater.problems import InputError
from tunelater.scoring import score_classes

SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))
FAMILY = loss_family("vs", [30, 3])
LAM = {"gamma": 0.1, "tau": 2.0}


class Encoder(nn.Module):
    """As an encoder of Hugging Face's: arguments by name, an output with `last_hidden_state`, a config."""

    base_model_prefix = "encoder"

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.embed = nn.Embedding(50, 6)

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return SimpleNamespace(last_hidden_state=self.embed(input_ids), pooler_output=self.embed(input_ids)[:, -1])


class Tagger(nn.Module):
    """As a model of Hugging Face's with a head for a task."""

    base_model_prefix = "encoder"

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(hidden_size=6)
        self.config = self.encoder.config
        self.classifier = nn.Linear(6, 9)

    @property
    def base_model(self) -> nn.Module:
        return self.encoder


class Map(nn.Module):
    """Gives its input, whatever that is."""

    def __init__(self, **told: int) -> None:
        super().__init__()
        for name, value in told.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("backbone", "width"),
    [
        (nn.Linear(3, 5), 5),
        (nn.Sequential(nn.Linear(3, 7), nn.Sequential(nn.Linear(7, 5), nn.ReLU()), nn.Dropout()), 5),
        (Map(channels=4), 4),
        (Map(num_features=4), 4),
        (Encoder(hidden_size=6), 6),
        (Encoder(hidden_sizes=[3, 6]), 6),
        (Tagger(), 6),
    ],
)
def test_the_width_comes_from_the_backbone(backbone: nn.Module, width: int) -> None:
    model = LossConditional.wrap(backbone, SPACE, 3)
    assert model.film is not None
    assert (model.trunk.channels, model.film.weight_out.shape[-1]) == (width, width)
    assert model.head.weight.shape == (3, width)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_a_timm_model_loses_its_classifier_and_keeps_its_features(name: str) -> None:
    from tunelater import vision

    size = {"img_size": 32, "depth": 1} if name.startswith("vit") else {}
    backbone = vision.timm().create_model(name, pretrained=False, **size).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = backbone.forward_head(backbone.forward_features(x), pre_logits=True)
        model = LossConditional.wrap(backbone, SPACE).eval()
        torch.testing.assert_close(model.features(x), expected)
    assert not any(p.shape[0] == 1000 for p in model.trunk.parameters()), "the classifier of ImageNet should be gone"


def test_a_head_for_another_task_is_left_out() -> None:
    tagger = Tagger()
    model = LossConditional.wrap(tagger, SPACE)
    ids = torch.randint(50, (4, 5))
    torch.testing.assert_close(model.features({"input_ids": ids}), tagger.encoder.embed(ids).mean(1))
    assert not any(p is tagger.classifier.weight for p in model.parameters())


def test_a_mean_of_tokens_leaves_out_padding() -> None:
    trunk = PooledTrunk(Encoder(hidden_size=6))
    ids = torch.randint(50, (4, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])
    of_each = [trunk({"input_ids": row[keep.bool()][None]})[0] for row, keep in zip(ids, mask, strict=True)]
    torch.testing.assert_close(trunk({"input_ids": ids, "attention_mask": mask}), torch.stack(of_each))


def test_other_poolings() -> None:
    encoder, ids = Encoder(hidden_size=6), torch.randint(50, (4, 5))
    first = PooledTrunk(encoder, pool="first")({"input_ids": ids})
    torch.testing.assert_close(first, encoder.embed(ids[:, 0]))
    own = PooledTrunk(encoder, pool=lambda out: out.pooler_output)({"input_ids": ids})
    torch.testing.assert_close(own, encoder.embed(ids[:, -1]))
    image = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(PooledTrunk(Map(), 4)(image), image.flatten(2).mean(2))
    torch.testing.assert_close(PooledTrunk(Map(), 5)(image), image.flatten(1, 2).mean(1))


def test_a_wrapped_backbone_starts_as_if_without_film() -> None:
    model = LossConditional.wrap(nn.Linear(3, 5), SPACE)
    plain = model.head(model.trunk(x := torch.randn(8, 3)))
    torch.testing.assert_close(model(x, LAM), plain)
    assert LossConditional.wrap(nn.Linear(3, 5), SPACE, start="paper").film is not None
    assert not torch.allclose(LossConditional.wrap(nn.Linear(3, 5), SPACE, start="paper")(x, LAM), plain)


def test_a_fixed_lambda_needs_no_film() -> None:
    assert LossConditional.wrap(nn.Linear(3, 5), LambdaSpace(gamma=0.1, tau=1.0)).film is None


@pytest.mark.parametrize("space", [SPACE, LambdaSpace(gamma=0.1, tau=1.0)])
def test_all_that_is_wrong_with_wrapping_is_told_at_once(space: LambdaSpace) -> None:
    with pytest.raises(InputError, match=r"n_classes=1(.|\n)*no option 'strat'; did you mean 'start'"):
        LossConditional.wrap(nn.Linear(3, 5), space, 1, strat="paper")
    with pytest.raises(InputError, match=r"drawn from a LambdaSpace, got {'tau': 1}"):
        LossConditional.wrap(nn.Linear(3, 5), {"tau": 1})


def test_all_that_is_wrong_with_a_backbone_is_told_at_once() -> None:
    with pytest.raises(InputError) as told:
        PooledTrunk(nn.ReLU(), pool="max")
    assert len(told.value.problems) == 2
    assert "pass channels=" in str(told.value)
    with pytest.raises(InputError, match="'max'"):
        PooledTrunk(nn.ReLU(), 3, pool="max")
    for channels in (0, -1, True, 2.0):
        with pytest.raises(InputError, match=f"got {channels}"):
            PooledTrunk(nn.ReLU(), channels)
    with pytest.raises(InputError, match=r"a torch\.nn\.Module"):
        PooledTrunk(torch.relu)
    for n_classes in (1, True, 2.0):
        with pytest.raises(InputError, match="two classes or more"):
            LossConditional.wrap(nn.Linear(3, 5), SPACE, n_classes)


def test_outputs_without_features_are_told() -> None:
    with pytest.raises(InputError, match=r"\(N, 4\), got \(2, 3\)"):
        PooledTrunk(Map(), 4)(torch.zeros(2, 3))
    with pytest.raises(InputError, match="last_hidden_state, got tuple"):
        PooledTrunk(Map(), 4)((torch.zeros(2, 4), torch.zeros(2, 4)))


# ------------------------------------------------------------------------------------------------------------- loaders


class Rows(Dataset):
    """Samples as mappings, under Hugging Face's names."""

    def __init__(self, x: Tensor, y: Tensor, weight: Tensor | None = None, label: str = "labels") -> None:
        self.x, self.y, self.weight, self.label = x, y, weight, label

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row = {"input": self.x[i], self.label: self.y[i]}
        return row if self.weight is None else {**row, "weight": self.weight[i]}


class Stream(IterableDataset):
    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return (self.rows[i] for i in range(len(self.rows)))


def model_and_samples(stages: bool = False) -> tuple[LossConditional, TensorSplit]:
    torch.manual_seed(0)
    n = 130
    data = TensorSplit(torch.randn(n, 3), (torch.arange(n) % 7 == 0).long(), torch.rand(n))
    model = LossConditional.wrap(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout()), SPACE, start="paper")
    if stages:
        model.film, model.stages = None, StageFiLM(SPACE, [Stage("backbone.0", 5)])
    return model, data


@pytest.mark.parametrize("stages", [False, True])
@pytest.mark.parametrize("form", ["pairs", "triples", "mappings", "label", "stream", "small batches", "dataset"])
def test_a_loader_scores_as_its_tensors_do(form: str, stages: bool) -> None:
    model, data = model_and_samples(stages)
    x, y, weight = data.x, data.target, data.weight
    if form in ("pairs", "mappings", "label"):
        weight = None
    rows = Rows(x, y, weight, "label" if form == "label" else "labels")
    loaded: Any = {
        "pairs": DataLoader(TensorDataset(x, y), batch_size=50),
        "triples": DataLoader(TensorDataset(x, y, data.weight), batch_size=50),
        "stream": DataLoader(Stream(rows), batch_size=32),
        "small batches": DataLoader(rows, batch_size=1),
        "dataset": TensorDataset(x, y, data.weight),
    }.get(form, DataLoader(rows, batch_size=50))
    modes = [module.training for module in model.modules()]
    expected = score(model, TensorSplit(x, y, weight), SPACE.grid(3), FAMILY, split="test", model_id="m")
    for memory_mb in (1, 256):
        found = score(model, loaded, SPACE.grid(3), FAMILY, split="test", model_id="m", memory_mb=memory_mb)
        np.testing.assert_allclose(found.log_odds, expected.log_odds, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.target, expected.target)
        assert (found.weight is None) == (weight is None)
        if weight is not None:
            np.testing.assert_array_equal(found.weight, expected.weight)
        assert (found.prior, found.split, found.model) == (expected.prior, "test", "m")
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("stages", [False, True])
def test_a_loader_scores_an_ensemble_by_the_mean_of_its_members(stages: bool) -> None:
    placement: Any = "stages" if stages else "features"
    options = {"members": 3, "width": 4, "depth": 2}
    config = Config(lambdas=SPACE, film=FiLMConfig(placement=placement), model=ModelConfig("tabm", options))
    model = build(config, n_features=3).eval()
    assert model.members == 3
    _, data = model_and_samples()
    loader = DataLoader(TensorDataset(data.x, data.target), batch_size=50)
    grid = SPACE.grid(3)
    found = score(model, loader, grid, FAMILY)
    np.testing.assert_allclose(found.log_odds, score(model, data, grid, FAMILY).log_odds, rtol=1e-5, atol=1e-5)
    for i in range(len(found)):
        lam = found.lam(i)
        with torch.no_grad():
            of_members = model.member_logits(model.features(data.x, lam), lam)
            expected = FAMILY.log_odds(of_members.mean(1), **lam)
        np.testing.assert_allclose(found.log_odds[i], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stages", [False, True])
def test_a_loader_of_three_classes_scores_as_its_tensors_do(stages: bool) -> None:
    _, data = model_and_samples()
    y, family = torch.arange(len(data)) % 3, loss_family("vs", [30, 10, 5])
    model = LossConditional.wrap(nn.Linear(3, 5), SPACE, 3, start="paper")
    if stages:
        model.film, model.stages = None, StageFiLM(SPACE, [Stage("backbone", 5)])
    expected = score_classes(model, TensorSplit(data.x, y, data.weight), SPACE.grid(2), family)
    found = score_classes(model, DataLoader(Rows(data.x, y, data.weight), batch_size=50), SPACE.grid(2), family)
    np.testing.assert_allclose(found.log_posterior, expected.log_posterior, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.target, y)
    np.testing.assert_array_equal(found.weight, expected.weight)
    with pytest.raises(InputError, match="targets 0 to 2, got 3"):
        score_classes(model, DataLoader(TensorDataset(data.x, y + 1)), SPACE.grid(2), family)


X, Y = torch.randn(10, 3), (torch.arange(10) % 5 == 0).long()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (DataLoader(TensorDataset(X, Y), shuffle=True), "shuffle=False"),
        (DataLoader(TensorDataset(X, Y), sampler=WeightedRandomSampler([1.0] * 10, 10)), "WeightedRandomSampler"),
        (DataLoader(TensorDataset(X, Y), batch_size=4, drop_last=True), "drop_last"),
        (DataLoader(TensorDataset(X), batch_size=4), "got 1 of them"),
        (DataLoader(TensorDataset(X, Y + 1), batch_size=4), "targets 0 to 1, got 2"),
        (DataLoader(TensorDataset(X, Y - 1), batch_size=4), "below zero"),
        (DataLoader(TensorDataset(X, Y.float()), batch_size=4), "int64, got torch.float32"),
        (DataLoader(TensorDataset(X, Y, -torch.ones(10)), batch_size=4), "not negative"),
        (DataLoader(Rows(X, Y, label="species"), batch_size=4), "under 'labels' or 'label'"),
        (TensorDataset(X[:0], Y[:0]), "got none"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), "got none"),
        (Stream(Rows(X, Y)), "pass a DataLoader"),
        ((X, Y), "a tuple of 2; pass torch.utils.data.TensorDataset"),
    ],
)
def test_what_is_wrong_with_a_loader_is_told(data: Any, told: str) -> None:
    model, _ = model_and_samples()
    with pytest.raises(InputError, match=told):
        score(model, data, SPACE.grid(2), FAMILY)


def test_as_many_targets_as_inputs() -> None:
    model, _ = model_and_samples()
    with pytest.raises(InputError, match="need as many inputs, got features of 9"):
        score(model, DataLoader([(X[:9], Y)], batch_size=None), SPACE.grid(2), FAMILY)
    some = [(X, Y, torch.ones(10)), (X, Y)]
    with pytest.raises(InputError, match="all batches have sample weights or none"):
        score(model, DataLoader(some, batch_size=None), SPACE.grid(2), FAMILY)
