"""LeNet-5 with ReLU and max-pool, as any PyTorch user would write it; `python docs/examples/lenet5.py lenet5.pt` trains it on MNIST."""

import logging
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.training import data

log = logging.getLogger("lenet5")


class LeNet5(nn.Module):
    """Two convolutions with max-pool, three dense layers: 28 x 28 gray pixels in [0, 1] to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 28, 28] -> [B, 10]."""
        x = torch.flatten(self.features(x), 1)
        x = functional.relu(self.fc1(x))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


def lenet5() -> nn.Module:
    """The untrained network."""
    return LeNet5()


def train(path: str, epochs: int = 12) -> None:
    """Trains on all but the last 5000 training images and saves the weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    split = data.load("mnist").train.part(0, 55_000)
    images, labels = torch.tensor(split.images) / 255, torch.tensor(split.labels)
    model = lenet5()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(labels)).split(128):
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        log.info("epoch %d: last loss %.4f", epoch + 1, loss.item())
    torch.save(model.state_dict(), path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(sys.argv[1])
