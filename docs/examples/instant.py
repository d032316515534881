"""Networks without a look-up: public features of an image, which the client computes, and a secret linear head.

The features follow Coates, Lee and Ng (2011), "An analysis of single-layer networks in unsupervised feature learning": each patch of
the image, its contrast normalized and whitened, is compared with a dictionary of patches; what exceeds a threshold, on either side,
is averaged over the cells of a grid, and the leading principal components of these means are kept. The dictionary is drawn from the
training images and is public with the rest of the features. Labels have no part in them: only the head knows labels. It is a logistic
regression on the features of several views of each training image, that is, of the image as it is and changed a little.

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
from ciphershift.models.training.augment import distort, shift_and_mirror

log = logging.getLogger("instant")
CLASSES = 10
CONTRAST, WHITENING, THRESHOLD = 10 / 255**2, 0.1, 0.25
RATE, MOMENTUM, DAMPING, DECAY = 0.1, 0.9, 0.1, 1e-3  # the last two in proportion to the features' mean variance
DISTORTION, SHIFT = 0.5, 1
RARE = 0.005  # share of a component's values that is clipped, on either side
BATCH = 4  # images at a time: their answers stay in the processor's cache
BLOCK = 1000  # images of one step of the head's training

Block = tuple[Tensor, Tensor]
"""Features [B, d] of some images, in half precision, and their classes [B, 10], one-hot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes of the features: answers of ``filters`` patches, means over ``pool`` (size, step), ``kept`` components in each cell.

    ``mirrored``: the answers are the means of those to the image and to its mirror image. ``views``: of each training image, which
    the head sees ``epochs`` times.
    """

    channels: int
    patch: int
    filters: int
    pool: tuple[int, int]
    cells: int
    kept: int
    mirrored: bool
    views: int
    epochs: int


PLANS = {
    "mnist": Plan(channels=1, patch=7, filters=400, pool=(7, 5), cells=4, kept=320, mirrored=False, views=8, epochs=2),
    "fashion-mnist": Plan(
        channels=1, patch=7, filters=400, pool=(7, 5), cells=4, kept=320, mirrored=True, views=2, epochs=2
    ),
    "cifar10": Plan(
        channels=3, patch=6, filters=1200, pool=(14, 13), cells=2, kept=1500, mirrored=True, views=1, epochs=3
    ),
}


class Features(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> features [B, kept, cells, cells]."""

    filters: Tensor
    offset: Tensor
    basis: Tensor
    center: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.register_buffer("filters", torch.zeros(plan.filters, plan.channels, plan.patch, plan.patch))
        self.register_buffer("offset", torch.zeros(plan.filters, 1, 1))
        self.register_buffer("basis", torch.zeros(plan.kept, 2 * plan.filters, 1, 1))
        self.register_buffer("center", torch.zeros(plan.kept))
        self.register_buffer("low", torch.zeros(plan.kept, 1, 1))
        self.register_buffer("high", torch.zeros(plan.kept, 1, 1))

    def answers(self, x: Tensor) -> Tensor:
        """Means [B, 2 * filters, cells, cells] of what exceeds the threshold."""
        mean = functional.avg_pool2d(x.mean(1, keepdim=True), self.plan.patch, 1)
        square = functional.avg_pool2d(x.square().mean(1, keepdim=True), self.plan.patch, 1)
        contrast = ((square - mean.square()).relu() + CONTRAST).sqrt()
        answers = functional.conv2d(x, self.filters).div_(contrast).sub_(self.offset)
        above = functional.avg_pool2d((answers - THRESHOLD).relu_(), *self.plan.pool)
        below = functional.avg_pool2d(answers.neg_().sub_(THRESHOLD).relu_(), *self.plan.pool)
        return torch.cat([above, below], 1)

    def forward(self, x: Tensor) -> Tensor:
        """The principal components of the answers in each cell, those of an unusual image clipped."""
        return functional.conv2d(self.both(x), self.basis, self.center).clamp(self.low, self.high)

    def both(self, x: Tensor) -> Tensor:
        """The answers, or their means with those to the mirror image."""
        return (self.answers(x) + self.answers(x.flip(3))) / 2 if self.plan.mirrored else self.answers(x)

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
        answers = torch.cat([self.both(part) for part in torch.split(images[:4000], BATCH)])
        answers = answers.movedim(1, 3).flatten(0, 2)
        axes = torch.linalg.eigh(torch.cov(answers.T)).eigenvectors[:, -self.plan.kept :].T
        self.basis, self.center = axes[:, :, None, None], -(axes @ answers.mean(0))
        ordered = (answers @ axes.T + self.center).sort(0).values
        rare = round(RARE * len(ordered))
        self.low, self.high = ordered[rare][:, None, None], ordered[-rare][:, None, None]


class Instant(nn.Module):
    """Public features and a secret head."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.features = Features(plan)
        self.head = nn.Linear(plan.kept * plan.cells**2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10]."""
        return torch.as_tensor(self.head(self.features(x).flatten(1)))

    def blocks(self, split: data.Split) -> list[Block]:
        """All images as they are, then further views of them, each changed a little."""
        return [
            self.block(part, varied=view > 0)
            for view in range(self.features.plan.views)
            for part in track(split.parts(BLOCK), f"view {view + 1}")
        ]

    def fit_head(self, blocks: list[Block]) -> None:
        """Logistic regression by gradient steps, each multiplied by the inverse of the features' covariance."""
        size, plan = self.head.in_features, self.features.plan
        first = [rows.float() for rows, _ in blocks[: len(blocks) // plan.views]]
        count = sum(len(rows) for rows in first)
        mean = torch.stack([rows.sum(0) for rows in first]).sum(0) / count
        products = torch.zeros(size, size, dtype=torch.float64)
        for rows in first:
            products += (rows - mean).T @ (rows - mean)
        covariance = (products / count).float()
        spread = covariance.diagonal().mean()
        factor = torch.linalg.cholesky(covariance + DAMPING * spread * torch.eye(size))
        weight, bias = torch.zeros(size, CLASSES), torch.zeros(CLASSES)
        speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
        order = torch.cat([torch.randperm(len(blocks)) for _ in range(plan.epochs)]).tolist()
        for step, index in enumerate(track(order)):
            rows, targets = blocks[index]
            rows, rate = rows.float() - mean, RATE * (1 - step / len(order))
            error = ((rows @ weight + bias).softmax(1) - targets) / len(rows)
            gradient = rows.T @ error + DECAY * spread * weight
            speed = MOMENTUM * speed - rate * torch.cholesky_solve(gradient, factor)
            bias_speed = MOMENTUM * bias_speed - rate * error.sum(0)
            weight, bias = weight + speed, bias + bias_speed
        self.head.weight.copy_(weight.T)
        self.head.bias.copy_(bias - mean @ weight)

    def block(self, part: data.Split, *, varied: bool) -> Block:
        """Of images as they are, or of a view of each."""
        images = as_tensor(part)
        if varied:
            mirrored = self.features.plan.mirrored
            images = shift_and_mirror(images, SHIFT) if mirrored else distort(images, DISTORTION)
        return features_of(self, images).half(), functional.one_hot(torch.tensor(part.labels), CLASSES).float()


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
    model.fit_head(model.blocks(dataset.train))
    torch.save(model.state_dict(), path)
    logits = torch.cat([model.head(features_of(model, as_tensor(part))) for part in dataset.test.parts(500)])
    right = (logits.argmax(1) == torch.tensor(dataset.test.labels)).float().mean()
    log.info("%d features; %.2f %% of the test images right", model.head.in_features, 100 * right)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(sys.argv[1], sys.argv[2])
