"""Find a user's module: ``path/to/file.py:factory``, and weights in a file beside it."""

import importlib.util
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ciphershift.errors import UnreadableModuleError
from ciphershift.he_layers.layers import Shape

USUAL_SHAPES = {1: (1, 28, 28), 3: (3, 32, 32)}


def load_module(source: str) -> nn.Module:
    """Calls ``factory`` in ``path/to/file.py:factory``. Raises UnreadableModuleError."""
    path, _, factory = source.rpartition(":")
    if not path or not Path(path).is_file():
        raise UnreadableModuleError(f"{source!r} does not name a file and a function; write path/to/file.py:factory")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UnreadableModuleError(f"{path} is not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, loaded)
    spec.loader.exec_module(loaded)
    make = getattr(loaded, factory, None)
    if not callable(make):
        raise UnreadableModuleError(f"{path} has no function {factory!r}")
    module = make()
    if not isinstance(module, nn.Module):
        raise UnreadableModuleError(f"{factory}() in {path} returns a {type(module).__name__}, not a torch.nn.Module")
    return module


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads a state dict (.safetensors, or torch.save without pickled code) into the module. Raises UnreadableModuleError."""
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # torch and safetensors raise many kinds, all of which mean that the file does not fit
        raise UnreadableModuleError(
            f"the weights in {path} cannot be loaded into {type(module).__name__}: {error}"
        ) from error


def input_shape(module: nn.Module, given: str | None) -> Shape:
    """(C, H, W) as given, "3x32x32"; otherwise the usual one for the channels of the first convolution. Raises UnreadableModuleError."""
    if given is not None:
        try:
            channels, height, width = map(int, given.split("x"))
        except ValueError:
            raise UnreadableModuleError(f"the input shape {given!r} is not of the form 3x32x32") from None
        return channels, height, width
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels not in USUAL_SHAPES:
        raise UnreadableModuleError("the shape of the input is not known; give it, as --input 3x32x32")
    return USUAL_SHAPES[first.in_channels]
