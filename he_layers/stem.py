"""A stem: the public part of a network, which the client computes in the clear before it encrypts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadStemError, DigestMismatchError, OutOfLevelsError, TooLargeError
from ciphershift.he_layers import onnx_file

Shape = tuple[int, ...]
MAX_BYTES = 64 << 20
"""Of the ONNX file."""
MAX_SIDES = 3
FILE = "stem.onnx"
MEANING = (
    "Whoever may use this model can fetch this part, with all its weights. Only the layers behind it are secret, "
    "and only as far as the answers to chosen inputs do not reveal them."
)
"""What a public part is for the owner of a network."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stem:
    """An ONNX file, and how its output becomes numbers from 0 to 1, the input of the secret part.

    Attributes:
        onnx: the file.
        public: where the owner cut the module: the path of the last public part.
        input_shape: of a raw sample, (C, H, W), (C, L) or (features,), with values from 0 to 1.
        shape: of the file's output for one sample, and of what is encrypted.
        low: of the output's range, which becomes 0: for each channel (first axis), or one for all.
        high: of the range, which becomes 1.
        most_outside: share of a sample's values that may lie outside the range, where they are clipped. A sample with more is refused.
    """

    onnx: bytes
    public: str
    input_shape: Shape
    shape: Shape
    low: tuple[float, ...]
    high: tuple[float, ...]
    most_outside: float

    def __post_init__(self) -> None:
        """Checks what can be checked without running the file. Raises TooLargeError or BadStemError."""
        require_size(len(self.onnx))
        for shape in (self.input_shape, self.shape):
            if not 1 <= len(shape) <= MAX_SIDES or min(shape) < 1:
                raise BadStemError(f"the public part has a shape {shape}; one to {MAX_SIDES} sides of at least 1")
        if not len(self.low) == len(self.high) or len(self.low) not in (1, self.shape[0]):
            raise BadStemError(
                f"the public part's range has {len(self.low)} low and {len(self.high)} high ends for {self.shape[0]} channels"
            )
        if not all(-np.inf < low < high < np.inf for low, high in zip(self.low, self.high, strict=True)):
            raise BadStemError("the public part's range has a low end that is not below the high one, or is not finite")
        if not 0 <= self.most_outside <= 1:
            raise BadStemError(f"most_outside = {self.most_outside}; a share from 0 to 1")

    @cached_property
    def sha256(self) -> str:
        """Of the file, as hex."""
        return hashlib.sha256(self.onnx).hexdigest()

    def to_spec(self) -> dict[str, Any]:
        """What a Program says of its stem, beside the file and its input's shape."""
        return {
            "sha256": self.sha256,
            "bytes": len(self.onnx),
            "public": self.public,
            "input_shape": self.input_shape,
            "low": self.low,
            "high": self.high,
            "most_outside": self.most_outside,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], onnx: bytes, shape: Shape) -> Self:
        """The stem of a Program or of a profile, with its file.

        Args:
            spec: as of ``to_spec``.
            onnx: the file.
            shape: of the secret part's input.

        Raises:
            DigestMismatchError: the file is another one than the spec's.
            TooLargeError, BadStemError: see above.
        """
        stem = cls(
            onnx=onnx,
            public=spec["public"],
            input_shape=tuple(map(int, spec["input_shape"])),
            shape=shape,
            low=tuple(map(float, spec["low"])),
            high=tuple(map(float, spec["high"])),
            most_outside=float(spec["most_outside"]),
        )
        stem.require_digest(spec["sha256"])
        return stem

    def require_digest(self, sha256: str) -> None:
        """Raises DigestMismatchError if the file is another one than stated."""
        if self.sha256 != sha256:
            raise DigestMismatchError(
                f"the public part has SHA-256 {self.sha256}, stated is {sha256}: it was damaged, or replaced meanwhile; fetch it again"
            )

    def run(self, samples: NDArray[np.floating]) -> NDArray[np.float32]:
        """The file's output [count, ...] for samples from 0 to 1, [count, ...] of ``input_shape``, one after the other.

        Raises:
            BadStemError: the file is not one that a stem may be (he_layers.onnx_file), or cannot be computed for a sample.
            OutOfLevelsError: a result is infinite or not a number.
            ConfigurationError: the extra ``stem`` is not installed.
        """
        session = self._session
        name = session.get_inputs()[0].name
        result = np.empty((len(samples), *self.shape), dtype=np.float32)
        for index, sample in enumerate(samples):
            try:
                (found,) = session.run(None, {name: sample[None].astype(np.float32)})
            except Exception as error:  # onnxruntime raises classes of its own
                raise onnx_file.bad(
                    f"cannot be computed for sample {index} ({onnx_file.short(error)}): give inputs of the kind that the model was made for"
                ) from error
            if found.shape != (1, *self.shape):
                raise onnx_file.bad(f"gives {found.shape} in place of {(1, *self.shape)}; export it again")
            result[index] = found[0]
        if not np.isfinite(result).all():
            raise OutOfLevelsError("the public part gives values that are infinite or not a number for this sample")
        return result

    def unit(self, samples: NDArray[np.floating]) -> NDArray[np.float64]:
        """What is encrypted, as numbers from 0 to 1, [count, ...] of ``shape``: the output of ``run`` in its range, clipped at its ends.

        Raises:
            OutOfLevelsError: more of a sample's values lie outside the range than calibration has seen.
            BadStemError, ConfigurationError: see ``run``.
        """
        found = self.scaled(self.run(samples))
        outside = ((found < 0) | (found > 1)).reshape(len(samples), -1).mean(axis=1)
        if (outside > self.most_outside).any():
            raise OutOfLevelsError(
                f"sample {int(outside.argmax())} is unlike those that the model was made for: {outside.max():.1%} of the public part's "
                f"values lie outside its range, at most {self.most_outside:.1%} may; give inputs of the kind that the model was trained on"
            )
        clipped: NDArray[np.float64] = np.clip(found, 0.0, 1.0)
        return clipped

    def scaled(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Values of ``run`` with the range as 0 to 1; beyond it they go on."""
        low, high = (np.reshape(ends, (-1, *[1] * (len(self.shape) - 1))) for ends in (self.low, self.high))
        result: NDArray[np.float64] = (values - low) / (high - low)
        return result

    def check(self) -> None:
        """Raises what ``run`` would raise before it has a sample."""
        _ = self._session

    @cached_property
    def _session(self) -> Any:
        return onnx_file.session(self.onnx, self.input_shape, self.shape)


def require_size(size: int) -> None:
    """Raises TooLargeError if a file has more than MAX_BYTES."""
    if size > MAX_BYTES:
        raise TooLargeError(f"the public part has {size} bytes; at most {MAX_BYTES}: cut the module earlier")
