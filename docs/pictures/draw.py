"""Draws the two diagrams of docs/architecture.md from the code: `make pictures`.

Arrows of the rooms are the imports that exist, the wall is the contract in pyproject.toml; names and sizes on the data's way are those of
the functions and of the parameter set. tests/docs/test_pictures.py asks that the files are what this draws.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import grimp
import svg

from ciphershift.he_layers.crypto import ckks, lwe, packing, params
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.layers.layer import flat_size
from ciphershift.he_layers.native import _kernel
from ciphershift.he_layers.program import Program

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
SECRETS = (
    "ciphershift.he_layers.crypto.secret_keys",
    "ciphershift.he_layers.crypto.ckks",
    "ciphershift.he_layers.crypto.seal",
)
PARTS = {
    "ciphershift.he_layers.native": "kernel",
    "ciphershift.he_layers.crypto": "crypto",
    "ciphershift.he_layers": "networks",
    **{f"ciphershift.{name}": name for name in ("benchmarks", "client", "models", "server", "protocol")},
    "ciphershift.errors": "protocol",
    "tenseal": "tenseal",
    "torch": "torch",
}
MODEL = "mnist-tiny"

# Where each room stands: x, y, width, height, class, lines.
ROOMS = {
    "benchmarks": (20, 20, 860, 44, "box", [("title", "benchmarks, tests: every room")]),
    "client": (20, 110, 240, 64, "client", [("title", "client"), ("small", "keys, encryption, requests, page")]),
    "models": (320, 110, 240, 64, "box", [("title", "models"), ("small", "training, conversion, export")]),
    "server": (640, 110, 240, 64, "server", [("title", "server"), ("small", "HTTP, jobs, tenants, workers")]),
    "networks": (440, 230, 440, 64, "box", [("title", "he_layers"), ("small", "Programs, layers: evaluated, simulated, priced")]),
    "secrets": (20, 350, 330, 64, "secret", [("title", "he_layers.crypto: what decrypts"), ("code", "secret_keys, ckks, seal")]),
    "crypto": (440, 350, 440, 64, "box", [("title", "he_layers.crypto: the rest"), ("small", "ciphertexts, look-ups, parameter sets")]),
    "tenseal": (20, 470, 150, 44, "box", [("", "TenSEAL")]),
    "kernel": (440, 470, 440, 44, "box", [("", "he_layers.native: the C++ kernel")]),
    "torch": (352, 230, 70, 44, "box", [("", "torch")]),
    "protocol": (20, 556, 860, 44, "box", [("title", "protocol, errors: the container format and the error tree, for every room")]),
}  # fmt: skip


def room(module: str) -> str | None:
    """Returns the room of a module, or None for one that is in no diagram."""
    if module in SECRETS:
        return "secrets"
    for package, name in PARTS.items():
        if module == package or module.startswith(f"{package}."):
            return name
    return None


def imports() -> dict[tuple[str, str], set[str]]:
    """Returns every pair of rooms of which the first imports the second, with the modules that do."""
    graph = grimp.build_graph("ciphershift", include_external_packages=True)
    pairs: dict[tuple[str, str], set[str]] = {}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            source, target = room(module), room(imported)
            if source and target and source != target:
                pairs.setdefault((source, target), set()).add(module)
    return pairs


def contract(name: str) -> dict[str, list[str]]:
    """Returns an import contract of pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(found for found in contracts if found["name"] == name)


def rooms() -> str:
    """Draws who imports whom."""
    ways = {
        ("client", "secrets"): [(70, 174), (70, 350)],
        ("client", "crypto"): [(115, 174), (115, 326), (470, 326), (470, 350)],
        ("client", "networks"): [(165, 174), (165, 308), (460, 308), (460, 294)],
        ("models", "torch"): [(387, 174), (387, 230)],
        ("models", "networks"): [(480, 174), (480, 230)],
        ("models", "secrets"): [(342, 174), (342, 350)],
        ("models", "crypto"): [(431, 174), (431, 382), (440, 382)],
        ("server", "networks"): [(720, 174), (720, 230)],
        ("server", "crypto"): [(860, 174), (860, 214), (892, 214), (892, 382), (880, 382)],
        ("networks", "torch"): [(440, 252), (422, 252)],
        ("networks", "crypto"): [(660, 294), (660, 350)],
        ("secrets", "crypto"): [(350, 398), (440, 398)],
        ("secrets", "tenseal"): [(95, 414), (95, 470)],
        ("secrets", "kernel"): [(300, 414), (300, 492), (440, 492)],
        ("crypto", "kernel"): [(660, 414), (660, 470)],
    }
    # Benchmarks may import every room, and every room may import the protocol: neither needs arrows.
    found = {pair: modules for pair, modules in imports().items() if pair[0] != "benchmarks" and pair[1] != "protocol"}
    if found.keys() != ways.keys():
        raise SystemExit(f"imports without a place, or places without imports: {found.keys() ^ ways.keys()}")
    if any(not module.startswith("ciphershift.he_layers.gpu.") for module in found["networks", "torch"]):
        raise SystemExit(f"torch is for he_layers.gpu alone: {found['networks', 'torch']}")
    # Two rooms reach where they have no business otherwise: each with one module, and the client for public parts (he_layers.stem).
    (checker,) = found["models", "secrets"]
    (comparer,) = (module for module in found["client", "networks"] if module.startswith("ciphershift.client.page."))
    names = ", ".join(
        module.rpartition(".")[2] for module in contract("The server cannot decrypt")["forbidden_modules"]
    )
    words = [
        svg.text(20, 630, f"Red: out of the server's reach, directly or not, by contract: {names}", "refused", "start"),
        svg.text(387, 290, "gpu only", "label"),
        svg.text(336, 215, f"{checker.removeprefix('ciphershift.')} only", "label", "end"),
        svg.text(171, 290, f"stem; {comparer.removeprefix('ciphershift.')}", "label", "start"),
    ]
    parts = [svg.box(*place) for place in ROOMS.values()]
    parts += [svg.arrow(way) for way in ways.values()]
    return svg.drawing(
        900,
        645,
        "Rooms of the code and their imports. Client imports what decrypts; nothing that the server imports does.",
        [*parts, *words],
    )


def way() -> str:
    """Draws the way of an image through the encrypted circuit, with the sizes of the smallest shipped network."""
    program = Program.load(ROOT / "models" / "zoo" / MODEL)
    chosen = params.get(program.params)
    pixels, logits = flat_size(program.input.shape), len(program.output.classes)
    upload = CkksCiphertext.nbytes(chosen, pixels) / 1e3
    answer, keys = PackedAnswer.nbytes(chosen, logits) / 1e3, EvaluationKeys.nbytes(chosen) / 1e6

    def step(x: float, y: float, kind: str, function: Callable[..., object], *lines: str) -> str:
        return svg.box(x, y, 180, 76, kind, [("code", function.__name__), *(("small", line) for line in lines)])

    parts = [
        svg.text(130, 44, "client: has the secret keys", "title"),
        svg.box(20, 60, 220, 310, "client"),
        svg.text(700, 44, "server: has evaluation keys, no secret", "title"),
        svg.box(390, 60, 640, 310, "server"),
        step(40, 90, "card", ckks.encrypt, f"{pixels} pixels: coefficients", "of one CKKS message"),
        step(40, 220, "card", ckks.decrypt, f"{logits} logits, if request", "and model match"),
        step(410, 90, "card", lwe.sample_extract, f"{pixels} LWE ciphertexts,", f"dimension {chosen.input_ring.ring_degree}"),
        step(620, 90, "card", lwe.linear, "convolution, dense layer:", "shifts and additions"),
        step(830, 90, "card", lwe.key_switch, "to the short key,", f"dimension {chosen.lwe_dimension}"),
        step(830, 220, "card", _kernel.modulus_switch, "rounded to a grid of", f"{2 * chosen.polynomial_size} points"),
        step(620, 220, "card", _kernel.blind_rotate, "reads a table: ReLU, max;", f"dimension {chosen.big_dimension}, low noise"),
        step(410, 220, "card", packing.packing_key_switch, f"{logits} logits in one", "CKKS ciphertext, flooded"),
        svg.arrow([(220, 128), (410, 128)]),
        svg.text(315, 118, f"{upload:.1f} kB"),
        svg.arrow([(410, 258), (220, 258)]),
        svg.text(315, 248, f"{answer:.1f} kB"),
        svg.arrow([(220, 340), (410, 340)]),
        svg.text(315, 330, f"{keys:.1f} MB, once"),
        svg.text(130, 345, "evaluation keys"),
        svg.text(420, 345, "evaluation keys: secrets encrypted under each other", anchor="start"),
        svg.arrow([(590, 128), (620, 128)]),
        svg.arrow([(800, 128), (830, 128)]),
        svg.arrow([(920, 166), (920, 220)]),
        svg.arrow([(830, 258), (800, 258)]),
        svg.arrow([(740, 220), (740, 166)], "loop"),
        svg.text(748, 198, "next layer", "small", "start"),
        svg.arrow([(660, 166), (660, 193), (500, 193), (500, 220)]),
        svg.text(580, 187, "last layer", "small"),
    ]  # fmt: skip
    return svg.drawing(
        1050,
        390,
        "An image is encrypted by the client, goes through extraction, linear layers and table look-ups on the server, and its "
        "logits come back packed in one ciphertext.",
        parts,
    )


DIAGRAMS = {"rooms.svg": rooms, "way.svg": way}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, draw in DIAGRAMS.items():
        (folder / name).write_text(draw(), encoding="utf-8")
