"""The section on networks of ImageNet's size, evaluated whole: what an image costs, against the prediction, and its noise by layer."""

from __future__ import annotations

from pathlib import Path

from ciphershift.benchmarks.networks.imagenet import SIDE
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import Stored

COMMAND = "ciphershift bench imagenet --model alexnet"
ABOUT = (
    "One encrypted image, from the first pixel to 1000 logits, in one process. Weights are random, statistics of batch norms are those of "
    "photographs: cost and noise are those of a trained network, accuracy is not asked for. *predicted*: from the times of the "
    "primitives, measured just before, on a machine that is not always equally fast. *eta*: least and greatest estimate of the whole time "
    "that was shown from a tenth of it on, over what it took. *noise*: standard deviation of the logits around those of the circuit "
    "without noise, over the logits' own spread, encrypted and simulated."
)
BY_CHAIN = (
    "Seconds and noise of each chain of layers (a convolution with the pools and look-ups behind it), by its last layer. *noise*: standard "
    "deviation of the chain's values around those of the circuit without noise, in thousandths of a turn, where they are kept."
)


def whole(stored: Stored, folder: Path) -> str:
    """Returns the section; draws nothing into ``folder``. Raises MissingError if nothing is stored."""
    records = stored.newest("imagenet", "model", "side", command=COMMAND, anywhere=True)
    head = (
        "network",
        "side",
        "set",
        "machine",
        "look-ups",
        "measured",
        "predicted / measured",
        "eta / measured",
        "memory at most",
        "upload",
        "answer",
        "noise, encrypted",
        "noise, simulated",
    )
    rows = [
        (
            record["model"],
            record["side"],
            record["params"],
            f"{tables.several(record['threads'], 'core')}, {record['isa']}",
            f"{record['lookups']:,}".replace(",", " "),
            tables.seconds(record["measured_s"]),
            f"{record['ratio']:.2f}",
            f"{record['eta_over_measured'][0]:.2f} to {record['eta_over_measured'][-1]:.2f}",
            tables.size(record["peak_memory_bytes"]),
            tables.size(record["upload_bytes"]),
            tables.size(record["answer_bytes"]),
            f"{record['logit_noise'] / record['logit_spread']:.3f}",
            f"{record['logit_noise_simulated'] / record['logit_spread']:.3f}",
        )
        for record in records
    ]
    text = f"{ABOUT}\n\n{tables.table(head, rows)}"
    for record in records:
        if record["side"] == SIDE:
            text += f"\n\n{record['model']}. {BY_CHAIN}\n\n" + tables.table(
                ("chain", "look-ups", "measured", "predicted", "noise, encrypted", "noise, simulated"),
                [
                    (
                        chain["layer"],
                        chain["lookups"],
                        tables.seconds(chain["measured_s"]),
                        tables.seconds(chain["predicted_s"]),
                        chain.get("encrypted_std", tables.NONE),
                        chain.get("simulated_std", tables.NONE),
                    )
                    for chain in record["chains"]
                ],
            )
    return text
