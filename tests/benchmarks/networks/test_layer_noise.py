"""The noise of each layer of an encrypted network is the simulation's."""

import numpy as np

from ciphershift.benchmarks.networks import layer_noise
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings, available_cpus

IMAGES = 8


def test_each_layer_of_a_network_has_the_noise_that_was_simulated() -> None:
    program = Program.load(Settings().models / "mnist-tiny")
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 28, 28), dtype=np.uint8)
    found = layer_noise.measure_layers(program, images, threads=available_cpus())
    assert [layer["layer"] for layer in found] == [stage.layer.name for stage in program.stages]
    for layer in found:
        assert layer["ratio_std"] < 0.15, layer
        assert abs(layer["ratio"] - 1) < 5 * layer["ratio_std"] + 0.03, layer
