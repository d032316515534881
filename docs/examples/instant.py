"""Networks without a look-up: public features of an image, which the client computes, and a secret linear head.

The features follow Coates, Lee and Ng (2011), "An analysis of single-layer networks in unsupervised feature learning": each patch of
the image, its contrast normalized and whitened, is compared with a dictionary of patches; what exceeds a threshold, on either side,
is averaged over the cells of a grid, and the leading principal components of these means are kept. The dictionary is drawn from the
training images and is public with the rest of the features. Labels have no part in them: only the head knows labels.

``python docs/examples/instant.py mnist instant.pt`` makes the features and trains the head.
"""

import logging
import sys
from dataclasses import dataclass

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.training import data

log = logging.getLogger("instant")
CLASSES = 10
CONTRAST, WHITENING, THRESHOLD, PENALTY = 10 / 255**2, 0.1, 0.25, 0.05
BATCH = 4  # images at a time: their answers stay in the processor's cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes of the features: answers of ``filters`` patches, means over ``pool`` (size, step), ``kept`` components in each cell."""

    channels: int
    patch: int
    filters: int
    pool: tuple[int, int]
    cells: int
    kept: int
    mirrored: bool


PLANS = {
    "mnist": Plan(channels=1, patch=7, filters=300, pool=(7, 5), cells=4, kept=160, mirrored=False),
    "fashion-mnist": Plan(channels=1, patch=7, filters=300, pool=(7, 5), cells=4, kept=160, mirrored=True),
    "cifar10": Plan(channels=3, patch=6, filters=800, pool=(9, 9), cells=3, kept=440, mirrored=True),
}


class Features(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> features [B, kept, cells, cells]."""

    filters: Tensor
    offset: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.register_buffer("filters", torch.zeros(plan.filters, plan.channels, plan.patch, plan.patch))
        self.register_buffer("offset", torch.zeros(plan.filters, 1, 1))
        self.register_buffer("basis", torch.zeros(plan.kept, 2 * plan.filters, 1, 1))
        self.register_buffer("center", torch.zeros(plan.kept))

    def answers(self, x: Tensor) -> Tensor:
        """Means [B, 2 * filters, cells, cells] of what exceeds the threshold."""
        mean = functional.avg_pool2d(x.mean(1, keepdim=True), self.plan.patch, 1)
        square = functional.avg_pool2d(x.square().mean(1, keepdim=True), self.plan.patch, 1)
        contrast = ((square - mean.square()).relu() + CONTRAST).sqrt()
        answers = functional.conv2d(x, self.filters) / contrast - self.offset
        sides = ((side - THRESHOLD).relu() for side in (answers, -answers))
        return torch.cat([functional.avg_pool2d(side, *self.plan.pool) for side in sides], 1)

    def forward(self, x: Tensor) -> Tensor:
        """The principal components of the answers in each cell."""
        return functional.conv2d(self.answers(x), self.basis, self.center)

    def fit(self, images: Tensor) -> None:
        """Draws the dictionary from images in [0, 1] and finds the components of its answers to the first 4000."""
        windows = images.unfold(2, self.plan.patch, 1).unfold(3, self.plan.patch, 1)
        image, row, column = (torch.randint(windows.shape[axis], (100_000,)) for axis in (0, 2, 3))
        patches = windows[image, :, row, column].flatten(1)
        patches = patches - patches.mean(1, keepdim=True)
        variance = patches.square().mean(1, keepdim=True)
        patches = (patches / (variance + CONTRAST).sqrt())[variance[:, 0] > CONTRAST / 4]
        center = patches.mean(0)
        values, axes = torch.linalg.eigh(torch.cov(patches.T))
        whitening = axes / (values + WHITENING).sqrt() @ axes.T
        filters = functional.normalize((patches[: self.plan.filters] - center) @ whitening) @ whitening
        self.offset = (filters @ center)[:, None, None]
        filters = (filters - filters.mean(1, keepdim=True)).reshape(self.filters.shape)
        self.filters = filters.to(memory_format=torch.channels_last)
        answers = torch.cat([self.answers(part) for part in torch.split(images[:4000], BATCH)])
        answers = answers.movedim(1, 3).flatten(0, 2)
        axes = torch.linalg.eigh(torch.cov(answers.T)).eigenvectors[:, -self.plan.kept :].T
        self.basis, self.center = axes[:, :, None, None], -(axes @ answers.mean(0))


class Instant(nn.Module):
    """Public features and a secret head."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.features = Features(plan)
        self.head = nn.Linear(plan.kept * plan.cells**2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10]."""
        return torch.as_tensor(self.head(self.features(x).flatten(1)))

    def fit_head(self, split: data.Split) -> None:
        """Ridge regression of the classes on standardized features of two views of each image, by the normal equations."""
        size = self.head.in_features
        products = torch.zeros(size + CLASSES + 1, size + CLASSES + 1, dtype=torch.float64)  # of features, classes, 1
        for part in track(split.parts(500), "features"):
            images, targets = as_tensor(part), functional.one_hot(torch.tensor(part.labels), CLASSES)
            for view in (images, self.varied(images)):
                rows = torch.cat([features_of(self, view), targets, torch.ones(len(view), 1)], 1)
                products += rows.T @ rows
        products /= products[-1, -1].clone()
        mean, share = products[-1, :size], products[-1, size:-1]
        covariance = products[:size, :size] - torch.outer(mean, mean)
        penalty = PENALTY * covariance.diagonal().diag()
        weight = torch.linalg.solve(covariance + penalty, products[:size, size:-1] - torch.outer(mean, share))
        self.head.weight.copy_(weight.T)
        self.head.bias.copy_(share - mean @ weight)

    def varied(self, x: Tensor) -> Tensor:
        """A second view of images [B, C, H, W]: mirrored, or turned, sheared, scaled and shifted a little."""
        if self.features.plan.mirrored:
            return x.flip(3)
        change = (torch.rand(len(x), 2, 3) * 2 - 1) * torch.tensor([[0.1, 0.2, 0.1], [0.2, 0.1, 0.1]])
        grid = functional.affine_grid(torch.eye(2, 3) + change, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


def as_tensor(split: data.Split) -> Tensor:
    """Images [B, C, H, W] in [0, 1]."""
    return torch.tensor(split.images).float() / 255


def features_of(model: Instant, images: Tensor) -> Tensor:
    """Features [B, d] of images in [0, 1]."""
    return torch.cat([model.features(part).flatten(1) for part in torch.split(images, BATCH)])


def mnist_instant() -> nn.Module:
    """The network for MNIST, untrained."""
    return Instant(PLANS["mnist"]).eval()


def fashion_instant() -> nn.Module:
    """The network for Fashion-MNIST, untrained."""
    return Instant(PLANS["fashion-mnist"]).eval()


def cifar10_instant() -> nn.Module:
    """The network for CIFAR-10, untrained."""
    return Instant(PLANS["cifar10"]).eval()


@torch.no_grad()
def train(name: str, path: str) -> None:
    """Makes the features from images without labels, trains the head, reports its accuracy, and saves all weights."""
    torch.manual_seed(0)
    dataset, model = data.load(name), Instant(PLANS[name]).eval()
    model.features.fit(as_tensor(dataset.train.part(0, 20_000)))
    model.fit_head(dataset.train)
    torch.save(model.state_dict(), path)
    logits = torch.cat([model.head(features_of(model, as_tensor(part))) for part in dataset.test.parts(500)])
    right = (logits.argmax(1) == torch.tensor(dataset.test.labels)).float().mean()
    log.info("%d features; %.2f %% of the test images right", model.head.in_features, 100 * right)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(sys.argv[1], sys.argv[2])
