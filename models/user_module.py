"""Find a user's module: ``path/to/file.py:factory``, and weights in a file beside it; or an ONNX file."""

import importlib.util
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ciphershift.errors import UnreadableModuleError
from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler.onnx_graph import SUFFIX, OnnxModule, load_onnx

STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints of training loops keep the state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""Of nn.DataParallel, torch.compile, and of training libraries that hold the network as ``model``."""
LFS = b"version https://git-lfs"
USUAL_SHAPES = {1: (1, 28, 28), 3: (3, 32, 32)}


def load_module(source: str) -> nn.Module:
    """Calls ``factory`` in ``path/to/file.py:factory``; imports of the file find files beside it. Or reads an ONNX file.

    Raises:
        UnreadableModuleError: there is no such file or function, or the user's code raises an error.
        ConfigurationError, UnsupportedLayerError: see models.compiler.onnx_graph.load_onnx.
    """
    if source.endswith(SUFFIX):
        return load_onnx(Path(source))
    path, _, factory = source.rpartition(":")
    if not path or not Path(path).is_file():
        raise UnreadableModuleError(
            f"{source!r} does not name a file and a function; write path/to/file.py:factory, or path/to/file.onnx"
        )
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UnreadableModuleError(f"{path} is not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, loaded)
    with _importing_from(Path(path).resolve().parent):
        try:
            spec.loader.exec_module(loaded)
            make = getattr(loaded, factory, None)
            module = make() if callable(make) else None
        except SyntaxError as error:
            raise UnreadableModuleError(f"{path}:{error.lineno} is not Python: {error.msg}") from error
        except Exception as error:  # user's code: whatever it raises is what we have to tell
            raise UnreadableModuleError(_told(error, path, factory)) from error
    if not callable(make):
        raise UnreadableModuleError(f"{path} has no function {factory!r}")
    if not isinstance(module, nn.Module):
        raise UnreadableModuleError(f"{factory}() in {path} returns a {type(module).__name__}, not a torch.nn.Module")
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _told(error: Exception, path: str, factory: str) -> str:
    """What the user's code raised, and at which line of his file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == Path(path)]
    where = f"{path}:{lines[-1]}" if lines else path
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = "; install it, or put it beside the file"
    elif isinstance(error, TypeError) and "argument" in str(error):
        hint = f"; {factory}() is called without arguments: give them default values"
    return f"{where} raises {type(error).__name__}: {error}{hint}"


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads a state dict into the module.

    The file is a .safetensors, or one of torch.save without pickled code, from any device. The state dict may lie in a checkpoint under
    one of STATE_KEYS, and its names may have the prefixes of torch.compile and of data-parallel training.

    Raises:
        UnreadableModuleError: the file is none of these, or its names and shapes are not the module's.
    """
    state = _read_state(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = _without_prefix(state, wanted)
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [
        f"{what} {', '.join(sorted(names)[:5])}{' and others' if len(names) > 5 else ''}"
        for what, names in (
            ("lack", wanted.keys() - given.keys()),
            ("have besides", given.keys() - wanted.keys()),
            ("have another shape for", {name for name in wanted.keys() & given.keys() if wanted[name] != given[name]}),
        )
        if names
    ]
    if problems:
        raise UnreadableModuleError(
            f"the weights in {path} cannot be loaded into {type(module).__name__}: they {'; they '.join(problems)}"
        )
    module.load_state_dict(state)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file. Raises UnreadableModuleError."""
    if not path.is_file():
        raise UnreadableModuleError(f"there is no file {path}")
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            raise UnreadableModuleError(
                f"{path} is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`"
            )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise UnreadableModuleError(
            f"{path} holds pickled code, a whole module say, which is not run; save its weights alone: "
            "torch.save(module.state_dict(), path)"
        ) from None
    except (
        Exception
    ) as error:  # torch and safetensors raise many kinds, all of which mean that the file is not one of theirs
        text = " ".join(str(error).split())[:200]
        raise UnreadableModuleError(
            f"{path} cannot be read ({text}); give a .safetensors or torch.save(module.state_dict(), path)"
        ) from error
    for key in STATE_KEYS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UnreadableModuleError(
            f"{path} holds no state dict; save torch.save(module.state_dict(), path), or put it under {', '.join(STATE_KEYS)}"
        )
    return found


def _without_prefix(state: dict[str, torch.Tensor], wanted: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The state dict without prefixes that all its names have and the module's have not."""
    while state:
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in wanted):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
                break
        else:
            break
    return state


def input_shape(module: nn.Module, given: str | None) -> Shape:
    """As given, "3x32x32" or "30"; otherwise what an ONNX file states, or the usual one for the channels of the first convolution.

    Raises:
        UnreadableModuleError: it is neither given nor known.
    """
    if given is not None:
        sides = given.split("x")
        if len(sides) > 3 or not all(side.isdigit() and int(side) for side in sides):
            raise UnreadableModuleError(f"the input shape {given!r} is not of the form 3x32x32, 12x29 or 30")
        return tuple(map(int, sides))
    if isinstance(module, OnnxModule) and module.input_shape:
        return module.input_shape
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels not in USUAL_SHAPES:
        raise UnreadableModuleError("the shape of the input is not known; give it, as --input 3x32x32")
    return USUAL_SHAPES[first.in_channels]
