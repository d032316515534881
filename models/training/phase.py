"""A phase of a training: what is chosen for it."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One run over the training set.

    Attributes:
        epochs: passes over the training images.
        learning_rate: of the optimizer at the start; it falls to zero along a cosine.
        frozen: share of the epochs, at the end, during which statistics and torus scales stand still.
        distortion: strength of models.training.augment.distort.
        fading: share of that strength that is gone at the end.
        shift: greatest shift in pixels; images are then mirrored, too (models.training.augment.shift_and_mirror).
        alternating: an image is mirrored in every second epoch, not by chance (Jordan, arXiv 2404.00498).
        cut_out: side in pixels of a square that is hidden in each image.
        batch: images in a step.
        weight_decay: of the optimizer.
        smoothing: share of the label that is spread over all classes.
        fused: compile the look-ups (models.compiler.network.Network.fuse) and multiply in bfloat16, channels last, for large feature maps.
        muon: by models.training.muon, not AdamW; the learning rate is that of its hidden weights.
        unit_rows: see models.training.muon.
        distilled: share of the loss that is the distance from a teacher's answers to the same images (Hinton et al., arXiv 1503.02531,
            at temperature 1).
        remembered: the teacher answers once, before the phase, to each image and to its mirror image as they are; the mean of the two
            answers is what all changes of this image are to give.
        loudness: limits of the factor of the circuit's noise, which is drawn for each batch.
        average: decay of the averages of all weights that end the phase (and begin its frozen part); 0: the last weights do. Statistics
            are then taken again.
        clips: of a Network whose weights are integers, learn where they are clipped, too, until statistics stand still (models.nn.shift).
    """

    epochs: int
    learning_rate: float
    frozen: float = 0.0
    distortion: float = 0.6
    fading: float = 0.0
    shift: int = 0
    alternating: bool = False
    cut_out: int = 0
    batch: int = 128
    weight_decay: float = 0.0
    smoothing: float = 0.0
    fused: bool = False
    muon: bool = False
    unit_rows: bool = False
    distilled: float = 0.0
    remembered: bool = False
    loudness: tuple[float, float] = (1.0, 1.0)
    average: float = 0.0
    clips: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError if clips are to be learned while nothing moves, or answers are remembered that nothing is learned from."""
        if self.remembered and not self.distilled:
            raise ValueError(
                "a teacher's answers are remembered for a phase that is distilled: give `distilled`, or leave remembered out"
            )
        if self.clips and self.frozen >= 1:
            raise ValueError(
                f"clips are learned until statistics stand still, which they do from the start where frozen is {self.frozen}: lower it, or "
                "leave clips out"
            )

    def of(self, images: int) -> "Phase":
        """The phase for a training set of so many images, which may be fewer than a batch."""
        return replace(self, batch=min(self.batch, images))

    @property
    def sees_images(self) -> bool:
        """Whether it needs the images themselves, behind a public part too: to change them, or to show them to the teacher."""
        return bool(self.shift or self.cut_out or self.distortion or self.distilled)

    def factor(self, progress: float) -> float:
        """Of the learning rate when this share of the phase, 0 to 1, is over."""
        return (1 + math.cos(math.pi * progress)) / 2
