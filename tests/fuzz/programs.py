"""Programs as a folder holds them: a changed program.json is refused with an error that the server knows, or is a Program."""

import json
import tempfile
from pathlib import Path

import atheris

from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.program import PROGRAM_FILE, WEIGHTS_FILE, Program
from tests.fuzz.target import changed, run

ZOO = Path("models/zoo")
MODELS = [ZOO / name for name in ("mnist-tiny", "mnist-exact", "breast-cancer", "splice-dna")]
TEXTS = [json.loads((folder / PROGRAM_FILE).read_text(encoding="utf-8")) for folder in MODELS]


def one(data: bytes) -> None:
    """The first choice is the model; up to four places of its description are changed."""
    choose = atheris.FuzzedDataProvider(data)
    number = choose.ConsumeIntInRange(0, len(MODELS) - 1)
    text = TEXTS[number]
    for _ in range(choose.ConsumeIntInRange(1, 4)):
        text = changed(choose, text)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, PROGRAM_FILE).write_text(json.dumps(text), encoding="utf-8")
        Path(folder, WEIGHTS_FILE).symlink_to((MODELS[number] / WEIGHTS_FILE).resolve())
        try:
            Program.load(Path(folder)).digest  # noqa: B018
        except CiphershiftError:
            return


if __name__ == "__main__":
    run(
        "programs",
        one,
        [bytes(range(n, n + 64)) for n in range(0, 192, 16)],
        ["ciphershift.he_layers", "ciphershift.protocol"],
    )
