"""The public data sets MNIST, Fashion-MNIST and CIFAR-10 as uint8 arrays, checked against a digest.

Looked for in the folder named by ``CIPHERSHIFT_DATA``, then in ``../shared/data`` beside the checkout, then in the download cache, which is
filled from the set's public home. Wherever it comes from, its bytes must match a SHA-256 written below; ``Dataset.source`` says where.
CIFAR-10 (cite Krizhevsky 2009) is the authors' binary archive, or WebP strips of the same images in a permuted order.
"""

import gzip
import hashlib
import logging
import os
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ciphershift.errors import UnreadableDataError
from ciphershift.models.training.metrics import Targets

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """``images`` uint8 [count, C, H, W] and ``labels`` [count]: classes, int64, or numbers of a regression, float64."""

    images: NDArray[np.uint8]
    labels: Targets

    def part(self, start: int, stop: int) -> "Split":
        """The images from ``start`` up to ``stop``."""
        return Split(images=self.images[start:stop], labels=self.labels[start:stop])

    def spread(self, count: int) -> "Split":
        """So many images from all over, or all there are: data may be sorted by class."""
        places = np.linspace(0, len(self.labels) - 1, min(count, len(self.labels))).round().astype(np.int64)
        return Split(images=self.images[places], labels=self.labels[places])

    def parts(self, size: int) -> "list[Split]":
        """All images, ``size`` at a time; the last part may be smaller."""
        return [self.part(start, start + size) for start in range(0, len(self.labels), size)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A training and a test split, the names of the classes, and the folder that the bytes came from."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    source: Path


CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
HOMES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "cifar10": "https://www.cs.toronto.edu/~kriz",
}
IDX_DIGESTS = {  # of the decompressed files
    "mnist/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "mnist/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "mnist/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "mnist/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "fashion-mnist/train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "fashion-mnist/train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "fashion-mnist/t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "fashion-mnist/t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR_ARCHIVE_DIGEST = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR_STRIP_DIGESTS = {  # of the pixels as uint8 NHWC, then of the labels as uint8
    "train": (
        "ef52077709b0a9b953b778ae379ef42822037d0db0ed5d82a9a45b86add3f506",
        "8be30611bdecb05293d0ed9c4f8f22213d5ca132c14e1899077257806aa1e313",
    ),
    "test": (
        "1c5c8bcea86355e8cf4dc4a1cefcdc9e7ef1a6330d48be608c66bcd4eb017449",
        "7d0096bea62c66cf0c8e5f207ee92d8b77fd087a6b24633375c05d6f210bbb3b",
    ),
}


def load(name: str) -> Dataset:
    """The data set of this name: "mnist", "fashion-mnist" or "cifar10".

    Raises:
        UnreadableDataError: unknown name, no copy and no download, or bytes that do not match their digest.
    """
    if name not in CLASSES:
        raise UnreadableDataError(f"no data set is called {name!r}; there are {', '.join(CLASSES)}")
    folder = _folder(name)
    log.info("data set %s from %s", name, folder)
    if name == "cifar10":
        read = _read_strips if (folder / "train-labels.npy").exists() else _read_archive
        train, test = read(folder, "train"), read(folder, "test")
    else:
        train, test = _read_idx(folder, name, "train"), _read_idx(folder, name, "t10k")
    return Dataset(train=train, test=test, classes=CLASSES[name], source=folder)


def path_of(name: str) -> Path:
    """A path as given, or else in the folders where the public sets are looked for."""
    found = next((root / name for root in _roots() if (root / name).exists()), Path(name))
    return Path(name) if Path(name).exists() else found


def _roots() -> list[Path]:
    checkout = Path(__file__).resolve().parents[2]
    named = [Path(os.environ["CIPHERSHIFT_DATA"])] if "CIPHERSHIFT_DATA" in os.environ else []
    return [*named, checkout.parent / "shared" / "data", checkout / "docs" / "examples"]


def _folder(name: str) -> Path:
    """First folder that has the set; the download cache, filled if need be, comes last."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ciphershift" / "data"
    for root in _roots():
        if (root / name).is_dir():
            return root / name
    files = (
        [CIFAR_ARCHIVE]
        if name == "cifar10"
        else [f"{Path(key).name}.gz" for key in IDX_DIGESTS if key.startswith(f"{name}/")]
    )
    for file in files:
        if not (cache / name / file).exists():
            _download(f"{HOMES[name]}/{file}", cache / name / file)
    return cache / name


def _download(url: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    log.info("downloading %s", url)
    try:
        urllib.request.urlretrieve(url, partial)
    except OSError as error:
        raise UnreadableDataError(
            f"{url} cannot be downloaded ({error}); put the data set into a folder named by CIPHERSHIFT_DATA"
        ) from error
    partial.replace(target)


def _check(what: str, content: bytes, digest: str) -> None:
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise UnreadableDataError(f"{what} has SHA-256 {found}, expected {digest}; delete it and fetch it again")


def _read_idx(folder: Path, name: str, prefix: str) -> Split:
    parts = []
    for file in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        content = gzip.decompress((folder / f"{file}.gz").read_bytes())
        _check(f"{folder / file}.gz, decompressed,", content, IDX_DIGESTS[f"{name}/{file}"])
        axes = content[3]
        parts.append(np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes))
    return Split(images=parts[0].reshape(-1, 1, 28, 28), labels=parts[1].astype(np.int64))


def _read_strips(folder: Path, split: str) -> Split:
    strips = [
        np.asarray(Image.open(path).convert("RGB")).reshape(-1, 32, 32, 3)
        for path in sorted(folder.glob(f"{split}-*.webp"))
    ]
    pixels = np.concatenate(strips)
    labels = np.load(folder / f"{split}-labels.npy")
    for what, array, digest in zip(("images", "labels"), (pixels, labels), CIFAR_STRIP_DIGESTS[split], strict=True):
        _check(f"{folder} ({split} {what})", array.astype(np.uint8).tobytes(), digest)
    return Split(images=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels=labels.astype(np.int64))


def _read_archive(folder: Path, split: str) -> Split:
    path = folder / CIFAR_ARCHIVE
    _check(str(path), path.read_bytes(), CIFAR_ARCHIVE_DIGEST)
    names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    records = []
    with tarfile.open(path) as archive:
        for name in names:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            assert member is not None  # the digest above fixes the content
            records.append(np.frombuffer(member.read(), dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32))
    rows = np.concatenate(records)
    return Split(images=rows[:, 1:].reshape(-1, 3, 32, 32), labels=rows[:, 0].astype(np.int64))
