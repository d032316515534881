"""The layers of a Program, one file each: shape rule, integer semantics and torus circuit side by side."""

from ciphershift.he_layers.layers.add import Add
from ciphershift.he_layers.layers.avg_pool import AvgPool2d
from ciphershift.he_layers.layers.conv import Conv2d
from ciphershift.he_layers.layers.crelu import CReLU
from ciphershift.he_layers.layers.dense import Dense
from ciphershift.he_layers.layers.flatten import Flatten
from ciphershift.he_layers.layers.gather import Gather
from ciphershift.he_layers.layers.layer import Circuit, Entries, Layer, Scale, Shape
from ciphershift.he_layers.layers.linear import Linear
from ciphershift.he_layers.layers.look_up import LookUp
from ciphershift.he_layers.layers.max_pool import MaxPool2d
from ciphershift.he_layers.layers.relu import ReLU
from ciphershift.he_layers.layers.reshape import Reshape
from ciphershift.he_layers.layers.shuffle import ChannelShuffle
from ciphershift.he_layers.layers.table import Table
from ciphershift.he_layers.layers.top_one import TopOne

KINDS: dict[str, type[Layer]] = {
    kind.kind: kind
    for kind in (
        Add,
        AvgPool2d,
        ChannelShuffle,
        Conv2d,
        CReLU,
        Dense,
        Flatten,
        Gather,
        Linear,
        LookUp,
        MaxPool2d,
        ReLU,
        Reshape,
        TopOne,
    )
}
"""Layer class by the name it has in program.json."""

__all__ = [
    "KINDS",
    "Add",
    "AvgPool2d",
    "CReLU",
    "ChannelShuffle",
    "Circuit",
    "Conv2d",
    "Dense",
    "Entries",
    "Flatten",
    "Gather",
    "Layer",
    "Linear",
    "LookUp",
    "MaxPool2d",
    "ReLU",
    "Reshape",
    "Scale",
    "Shape",
    "Table",
    "TopOne",
]
