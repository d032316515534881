"""VGG-9 for 32 x 32 color images: six convolutions, three dense layers."""

from torch import nn


def vgg9(width: int = 32, classes: int = 10) -> nn.Module:
    """The untrained network; ``width`` channels in its first convolutions."""
    layers: list[nn.Module] = []
    channels = 3
    for maps in (width, 2 * width, 4 * width):
        for inputs in (channels, maps):
            layers += [nn.Conv2d(inputs, maps, 3, padding=1, bias=False), nn.BatchNorm2d(maps), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = maps
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * 4 * 4, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    )
