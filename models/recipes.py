"""How each network of the zoo is made: its topology and its training. Chosen on the validation images, never on the test images."""

from dataclasses import dataclass

from he_layers.crypto.params import DEFAULT, EXACT_N2048
from models.exact import ExactNetwork, SparseConvSpec, SparseDenseSpec, SparseSpec
from models.network import BlockSpec, ConvSpec, DenseSpec, Network
from models.training import Phase

VALIDATION_IMAGES = 5000
"""Taken from the end of the training set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One network of the zoo.

    Attributes:
        dataset: name for models.data.load.
        input_shape: (C, H, W) of its images.
        blocks: the topology.
        float_phase: training of the float baseline of the same topology.
        noisy_phase: training from there with integer weights and activations and the circuit's noise.
        paired_phase: training from there to answer with noise as without.
        levels: greatest integer of an activation.
        params: name of the parameter set that the network is made for.
    """

    name: str
    dataset: str
    input_shape: tuple[int, int, int]
    blocks: tuple[BlockSpec, ...]
    float_phase: Phase
    noisy_phase: Phase
    paired_phase: Phase | None = None
    levels: int = 31
    seed: int = 1
    params: str = DEFAULT

    def network(self) -> Network:
        """An untrained network of this topology."""
        return Network(self.input_shape, self.blocks, levels=self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRecipe:
    """One network of the zoo in the exact profile, which is trained without noise.

    Attributes:
        dataset: name for models.data.load.
        input_shape: (C, H, W) of its images.
        blocks: the topology.
        head_nonzeros: weights of each logit that are not 0.
        modulus: of the sums that look-ups read; ``logit_modulus`` that of the logits.
        pixel_levels: greatest integer of a pixel; ``levels`` that of an activation.
        float_phase: training of the float baseline of the same topology.
        integer_phase: training from there with integers.
        params: name of the parameter set that the network is made for.
    """

    name: str
    dataset: str
    input_shape: tuple[int, int, int]
    blocks: tuple[SparseSpec, ...]
    head_nonzeros: int
    modulus: int
    logit_modulus: int
    pixel_levels: int
    levels: int
    float_phase: Phase
    integer_phase: Phase
    params: str
    seed: int = 1

    def network(self) -> ExactNetwork:
        """An untrained network of this topology."""
        return ExactNetwork(
            self.input_shape,
            self.blocks,
            head_nonzeros=self.head_nonzeros,
            modulus=self.modulus,
            logit_modulus=self.logit_modulus,
            levels=self.levels,
            pixel_levels=self.pixel_levels,
        )


RECIPES: dict[str, Recipe | ExactRecipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist-fast",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=3, kernel=5, stride=2, drive=0.13),
                ConvSpec(maps=12, kernel=4, stride=2, drive=0.13),
                DenseSpec(units=160, drive=0.13),
            ),
            float_phase=Phase(epochs=15, learning_rate=4e-3),
            noisy_phase=Phase(epochs=50, learning_rate=3e-3, frozen=0.15),
            paired_phase=Phase(epochs=15, learning_rate=1e-3, frozen=0.5, paired=True),
        ),
        Recipe(
            name="mnist-she",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=20, kernel=5, stride=2, padding=2, pool=2, drive=0.09),
                ConvSpec(maps=48, kernel=3, padding=1, pool=2, drive=0.1),
                DenseSpec(units=128, drive=0.13),
            ),
            float_phase=Phase(epochs=12, learning_rate=4e-3),
            noisy_phase=Phase(epochs=40, learning_rate=3e-3, frozen=0.15),
        ),
        ExactRecipe(
            name="mnist-exact",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                SparseConvSpec(maps=6, kernel=5, stride=2, padding=1, pool=2, nonzeros=20),
                SparseConvSpec(maps=16, kernel=3, nonzeros=20),
                SparseDenseSpec(units=64, nonzeros=22),
            ),
            head_nonzeros=32,
            modulus=56,
            logit_modulus=256,
            pixel_levels=2,
            levels=3,
            float_phase=Phase(epochs=4, learning_rate=4e-3),
            integer_phase=Phase(epochs=24, learning_rate=4e-3, frozen=0.15),
            params=EXACT_N2048.name,
        ),
    )
}
