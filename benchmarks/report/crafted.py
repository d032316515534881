"""The section on crafted inputs: how far an image that was made for it drives the encrypted network from the plaintext one."""

from __future__ import annotations

from pathlib import Path

from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import Stored

COMMAND = "ciphershift bench crafted --model NAME"
ABOUT = (
    "In the fast profile a sum that leaves the window of its look-up wraps on the torus, where the plaintext network clips. Training "
    "keeps the sums of ordinary inputs inside, so they agree; an input that is made for it need not. The search changes windows and "
    "single values of test inputs, whoever knows the network can do the same, and the 16 worst of what it tried are counted. "
    "*difference*: the greatest of a logit, in standard deviations of the logits over the test inputs, without the noise of the "
    "circuit; *again and again*: the class differs in nine of ten simulations with noise. *windows*: how many times as wide they "
    "were made (`ciphershift answer NAME --windows 2`, without training again), which makes the noise as many times as great; the "
    "accuracy, with noise, on test inputs says what that costs. *safe windows*: what is wider holds the values of every input at all, by "
    "interval arithmetic (he_layers.analysis.windows.safe_factor): then only noise is left. "
    "The exact profile counts modulo in both networks, so nothing differs. "
    "Who lets strangers choose inputs and acts on the class alone, as in a filter for abuse, should know that such inputs exist, as "
    "they do for every network in the clear, and can use wider windows or the exact profile; privacy is not touched."
)


def crafted(stored: Stored, folder: Path) -> str:
    """Returns the section; draws nothing into ``folder``. Raises MissingError if nothing is stored."""
    rows = [
        (
            record["model"],
            record["profile"],
            f"{record['windows']:g}",
            f"{record['safe_windows']:.2f}" if record.get("safe_windows") else tables.NONE,
            tables.percent(record.get("accuracy"), 2),
            f"{record['ordinary']['difference']:.2f}",
            f"{record['ordinary']['flips']} of {record['ordinary']['images']}",
            f"{record['tried']:,}".replace(",", " "),
            f"{record['crafted']['difference']:.2f}",
            f"{record['crafted']['reproducible']} of {record['crafted']['images']}",
        )
        for record in stored.newest("crafted", "model", "windows", command=COMMAND, anywhere=True)
    ]
    head = (
        "network",
        "profile",
        "windows",
        "safe windows",
        "accuracy",
        "difference, test inputs",
        "other class",
        "inputs tried",
        "difference, crafted",
        "other class again and again",
    )
    return f"{ABOUT}\n\n{tables.table(head, rows)}"
