"""Read an nn.Module with torch.export: every call of torch becomes operations (models.compiler.ir) or a finding with what to use instead.

torch.export runs the module once on a sample without values. What comes out is free of in-place changes, sizes are numbers, options have
their values, and weights that are computed from others (weight norm) are constants that are evaluated here.
"""

import inspect
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.cut import cut
from ciphershift.models.compiler.head import HEAD
from ciphershift.models.compiler.operators import operations_of
from ciphershift.models.compiler.places import postponed
from ciphershift.models.compiler.recurrent import DECOMPOSITIONS
from ciphershift.models.compiler.step import PARTS, Call, Postponed, UnsupportedStepError, Value

TORCH = Path(torch.__file__).parent
BATCH = 3
"""Samples that the module is traced with."""
FILLED = frozenset({"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"})
"""Functions that take no more of a value than its shape, as for the first state of a loop."""
LONGEST = 300
"""Letters of an error of torch that a finding repeats."""


class Trace:
    """A module as it was read.

    Attributes:
        result: operations and findings.
        structure: of what the module returns, as torch's pytree keeps it.
        input_shape: of the network's input, IMAGE: the module's, or what the public part gives.
    """

    def __init__(
        self, exported: ExportedProgram, input_shape: Shape, leaves: set[str], end: fx.Node | None = None
    ) -> None:
        self._exported = exported
        reader = _Reader(exported, input_shape, leaves, end)
        self.result, self._names = reader.read(), reader.names
        self.structure = exported.call_spec.out_spec
        self.input_shape = reader.shapes[IMAGE]

    def values(self, samples: Tensor) -> dict[str, Tensor]:
        """What torch computes at every step, by name of the operation; as many samples as fill whole batches of the trace."""
        batches = [batch for batch in torch.split(samples, BATCH) if len(batch) == BATCH]
        parts: dict[str, list[Tensor]] = {}
        module = self._exported.module()
        for batch in batches:
            recorder = _Recorder(module, {node.name: name for node, name in self._names.items() if name})
            with torch.no_grad():
                recorder.run(batch.clone())
            for name, value in recorder.seen.items():
                parts.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in parts.items()}


class _Recorder(fx.Interpreter):
    """Runs the exported graph and keeps the results of the steps that became operations."""

    def __init__(self, module: fx.GraphModule, names: dict[str, str]) -> None:
        super().__init__(module)
        self.names = names
        self.seen: dict[str, Tensor] = {}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A view as a copy where strides are not those of the trace: convolutions choose them as they like."""
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """One step."""
        result = super().run_node(n)
        if n.name in self.names and isinstance(result, Tensor):
            self.seen[self.names[n.name]] = result.float().clone()
        return result


def trace(module: nn.Module, input_shape: Shape, public: str | None = None) -> Trace | list[ir.Finding]:
    """Reads a module for samples of ``input_shape``, in evaluation mode; the module is left as it was.

    Args:
        module: to be read.
        input_shape: of a sample.
        public: path of the last public part; what is read begins behind it.

    Returns:
        The trace; or why there is none.
    """
    module = unwrapped(module)
    if findings := list(_faults(module)):
        return findings
    try:
        whole = exported(module, torch.zeros(BATCH, *input_shape))
    except UnsupportedStepError as error:  # of an ONNX file
        return [ir.Finding(place=error.place, problem=error.problem, instead=error.instead)]
    except Exception as error:  # user's code runs here: whatever it raises is what we have to tell
        text = " ".join(str(error).split())
        text = text if len(text) <= LONGEST else text[:LONGEST] + " ..."
        problem = f"cannot be traced: {type(error).__name__}: {text}"
        instead = f"make it run on a batch of samples of shape {tuple(input_shape)}, without branches or loops that depend on values"
        return [ir.Finding(place="the module", problem=problem, instead=instead)]
    end = cut(whole, public) if public else None
    if isinstance(end, ir.Finding):
        return [end]
    return Trace(whole, input_shape, {name for name, part in module.named_modules() if not list(part.children())}, end)


def exported(module: nn.Module, sample: Tensor) -> ExportedProgram:
    """The graph of a module in evaluation mode, for batches of this size; the module is left as it was."""
    with evaluation_mode(module), quiet(), torch.no_grad():
        graph: ExportedProgram = torch.export.export(module, (sample,), strict=False).run_decompositions(DECOMPOSITIONS)
    return graph


def read(module: nn.Module, input_shape: Shape) -> ir.TraceResult:
    """The operations of a module, and a finding for everything that cannot be evaluated."""
    traced = trace(module, input_shape)
    return traced.result if isinstance(traced, Trace) else ir.TraceResult(findings=traced)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, without the wrappers of torch.compile and of data-parallel training; in single precision."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _faults(module: nn.Module) -> Iterator[ir.Finding]:
    """What is wrong with a module before it is run."""
    if isinstance(module, torch.jit.ScriptModule):
        yield ir.Finding(
            place="the module",
            problem="is TorchScript",
            instead="give the nn.Module that it was made from; TorchScript cannot be read back",
        )
        return
    if isinstance(module, fx.GraphModule) and "eval" in vars(module):
        yield ir.Finding(
            place="the module",
            problem="comes from torch.export",
            instead="give the nn.Module that it was exported from",
        )
        return
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(needed) > 1:
        yield ir.Finding(
            place="the module",
            problem=f"takes {len(needed)} inputs: {', '.join(needed)}",
            instead="give the network one input; others may have default values",
        )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            yield ir.Finding(place=name, problem="has no values: it is on the device meta", instead="load its weights")
            return
        if is_lazy(tensor):
            yield ir.Finding(
                place=name, problem="has no shape yet", instead="call the module once, then load its weights"
            )
            return
        if tensor.device.type != "cpu":
            yield ir.Finding(place=name, problem=f"is on the device {tensor.device}", instead="call module.cpu() first")
            return
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            yield ir.Finding(
                place=name, problem=f"is of type {tensor.dtype}", instead="call module.float() first: single precision"
            )
            return
        if wrong := int((~torch.isfinite(tensor)).sum()):
            yield ir.Finding(
                place=name,
                problem=f"holds {wrong} values that are NaN or infinite, of {tensor.numel()}",
                instead="train it again with a lower learning rate, or load other weights",
            )


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """All parts in evaluation mode; afterwards each is in its own mode again."""
    modes = {part: part.training for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings about itself, its own log of failures, which a finding repeats, and that of each step of writing ONNX."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def filled(arguments: Any) -> Any:
    """Arguments with zeros in the places of values."""
    return pytree.tree_map(lambda leaf: torch.zeros(BATCH, *leaf.shape) if isinstance(leaf, Value) else leaf, arguments)


class _Reader:
    """Goes through the exported graph once."""

    def __init__(self, exported: ExportedProgram, input_shape: Shape, leaves: set[str], end: fx.Node | None) -> None:
        self.exported, self.leaves, self.end = exported, leaves, end
        self.traced = ir.TraceResult()
        self.names: dict[fx.Node, str] = {}
        self.shapes: dict[str, Shape] = {IMAGE: tuple(input_shape)}
        self.constants: dict[fx.Node, Any] = {}
        self.postponed: dict[fx.Node, Postponed] = {}

    def read(self) -> ir.TraceResult:
        self._read_inputs()
        for node in self.exported.graph.nodes:
            if self.end is not None and node is self.end:
                self.names[node], self.shapes[IMAGE] = IMAGE, tuple(node.meta["val"].shape[1:])
            elif node.op == "call_function":
                if any(n in self.names for n in node.all_input_nodes):
                    self._step(node)
                elif all(n in self.constants for n in node.all_input_nodes):
                    with torch.no_grad():
                        self.constants[node] = node.target(*self._resolved(node.args), **self._resolved(node.kwargs))
            elif node.op == "output":
                self._output(node)
        return self.traced

    def _read_inputs(self) -> None:
        """Parameters, buffers and constants get their values; the input gets its name."""
        by_name = {node.name: node for node in self.exported.graph.nodes if node.op == "placeholder"}
        for spec in self.exported.graph_signature.input_specs:
            node = by_name[spec.arg.name]
            if spec.kind is InputKind.USER_INPUT:
                if self.end is None:
                    self.names[node] = IMAGE
            elif spec.target in self.exported.state_dict:
                self.constants[node] = self.exported.state_dict[spec.target].detach()
            elif spec.target in self.exported.constants:
                self.constants[node] = self.exported.constants[spec.target]

    def _resolved(self, argument: Any) -> Any:
        """An argument with constants and values in the places of nodes."""
        return fx.node.map_arg(argument, lambda n: self.constants[n] if n in self.constants else self._value(n))

    def _value(self, node: fx.Node) -> Any:
        if node in self.postponed:
            return self.postponed[node]
        name = self.names.get(node)
        if not name:
            raise UnsupportedStepError("reads several results at once", "use one of the results")
        return Value(name=name, shape=self.shapes[name])

    def _step(self, node: fx.Node) -> None:
        kept = node.meta.get("val")
        if not isinstance(kept, Tensor):  # its parts are read one by one, as items
            self.names[node] = ""
            return
        try:
            call = self._call(node)
        except UnsupportedStepError as error:
            place, leaf = self._place(node)
            self._note(place, error.problem, error.instead)
            name = self._unique(leaf or node.name)
            stand_in = ir.Identity(name=name, place=place, inputs=(IMAGE,), shape=tuple(kept.shape[1:]))
            self.traced.operations.append(stand_in)
            self.shapes[name], self.names[node] = stand_in.shape, name
            return
        if call.function == "mul" and any(isinstance(a, Tensor) and not a.any() for a in call.arguments):
            self.constants[node] = torch.zeros(kept.shape)  # as a gate times a first state of zeros
            return
        if call.function in FILLED:
            self.constants[node] = call.run(*filled(call.arguments), **filled(call.options))
            return
        try:
            if tuple(kept.shape[:1]) != (BATCH,):
                raise UnsupportedStepError(
                    "mixes the samples of a batch", "treat every sample alike: the first axis is the batch"
                )
            operations, result = _operations_of(call)
        except UnsupportedStepError as error:
            if later := postponed(call):
                self.postponed[node], self.names[node] = later, ""
                return
            self._note(call.place, error.problem, error.instead)
            inputs = tuple(self.names[n] or IMAGE for n in node.all_input_nodes if n in self.names)
            stand_in = ir.Identity(name=call.name, place=call.place, inputs=inputs[:1], shape=call.shape)
            operations, result = (stand_in,), call.name
        self.traced.operations.extend(operations)
        self.shapes |= {operation.name: operation.shape for operation in operations}
        self.names[node] = result

    def _call(self, node: fx.Node) -> Call:
        """The call of a step; an item of several results is the call that gives them."""
        source, item = node, None
        if node.target is operator.getitem:
            source, item = node.args[0], int(node.args[1])  # type: ignore[assignment, arg-type]
        target: Any = source.target
        function = str(target.overloadpacket.__name__ if hasattr(target, "overloadpacket") else target.__name__)
        place, leaf = self._place(source)
        shape = tuple(node.meta["val"].shape[1:])
        run: Callable[..., Any] = target if item is None else lambda *a, **k: target(*a, **k)[item]
        return Call(
            name=self._unique(leaf or function.strip("_")),
            function=function,
            place=place,
            shape=shape,
            run=run,
            arguments=self._resolved(source.args),
            options=self._resolved(source.kwargs),
            item=item,
        )

    def _unique(self, wish: str) -> str:
        """An identifier that no other operation has."""
        wish = "".join(c if c.isalnum() else "_" for c in wish)
        wish = f"_{wish}" if wish[:1].isdigit() else wish
        name, number = wish, 0
        while name == HEAD or any(taken in self.shapes for taken in (name, *(f"{name}_{part}" for part in PARTS))):
            number += 1
            name = f"{wish}_{number}"
        return name

    def _note(self, place: str, problem: str, instead: str) -> None:
        finding = ir.Finding(place=place, problem=problem, instead=instead)
        if finding not in self.traced.findings:
            self.traced.findings.append(finding)

    def _output(self, node: fx.Node) -> None:
        """Names what is returned, and leaves out what nothing of it reads."""
        results: Any = node.args[0]
        values = [
            value
            for value, spec in zip(results, self.exported.graph_signature.output_specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT  # others are buffers, or the input, changed in place
        ]
        names = _names(self.exported.call_spec.out_spec, len(values))
        found = {name: self.names.get(v) for name, v in zip(names, values, strict=True) if isinstance(v, fx.Node)}
        if len(found) != len(values) or not found:
            self._note("the module", f"returns {len(values)} values, not all of which are tensors", "return tensors")
        for name, operation in found.items():
            which = f"the module's output {name}" if name else "the module"
            if not operation:
                self._note(which, "does not depend on the input", "leave it out")
            elif operation == IMAGE:
                self._note(which, "is its input", "end in nn.Linear: the logits")
            else:
                self.traced.returned[name] = operation
        places = {operation.name: i for i, operation in enumerate(self.traced.operations)}
        last = max((places[name] for name in self.traced.returned.values()), default=-1)
        del self.traced.operations[last + 1 :]  # nothing that is returned reads them

    def _place(self, node: fx.Node) -> tuple[str, str]:
        """Where the user finds a call, and the path of the module if it is that module's own: path, or file and line."""
        stack = [str(path).split("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        path = stack[-1] if stack else ""
        if path and path in self.leaves:
            return path, path
        lines = [line.strip() for line in (node.stack_trace or "").splitlines()] + [""]
        for header, code in reversed([(a, b) for a, b in pairwise(lines) if a.startswith('File "')]):
            if TORCH not in (file := Path(header.split('"')[1])).parents:
                text = "" if not code or code.startswith('File "') else f" ({code})"
                return f"{file.name}:{header.split('line ')[1].split(',')[0]}{text}", ""
        return path or node.name, ""


def _operations_of(call: Call) -> tuple[tuple[ir.Operation, ...], str]:
    """What a call becomes; whatever else goes wrong with it is the user's to see at that line, not a traceback.

    Raises:
        UnsupportedStepError: it becomes nothing.
    """
    try:
        return operations_of(call)
    except UnsupportedStepError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:LONGEST]
        raise UnsupportedStepError(
            f"{call.function} of these arguments cannot be read ({type(error).__name__}: {text})",
            "write the step in another way, and report it",
        ) from error


def _names(structure: Any, count: int) -> list[str]:
    """A name for each tensor that a module returns: keys of dicts, names of fields, places in tuples; "" for an only one."""
    if count == 1:
        return [""]
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(count), structure))
    words = [[getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path] for path, _ in paths]
    return [
        f"output{path[0]}" if len(path) == 1 and isinstance(path[0], int) else ".".join(map(str, path))
        for path in words
    ]
