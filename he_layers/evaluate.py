"""Evaluate a Program on encrypted images: CKKS ciphertexts in, a packed CKKS answer for each image out, progress on the way.

Runs each layer's circuit (he_layers.layers) on LWE ciphertext lists. Knows no secret, no HTTP and no bytes.

An LWE ciphertext takes 8 KB, a feature map of 64 x 32 x 32 values half a gigabyte. A convolution with the pools and look-ups after it is
therefore evaluated in slices of its output channels, small enough that a slice's sums hold about SLICE_ROWS ciphertexts (as many for
each worker, two slices at a time, if look-ups are computed elsewhere); in full there are only the input of such a chain and its result,
each until its last use.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from time import perf_counter
from typing import Any, Generic, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, WrongParamsError
from ciphershift.he_layers.crypto import lwe, noise, packing, pbs
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, LweCiphertextList, PackedAnswer
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers import Dense
from ciphershift.he_layers.layers.layer import Circuit, FloatArray, IntArray, LinearLayer, Shape, T, flat_size
from ciphershift.he_layers.program import IMAGE, Program, Stage
from ciphershift.protocol.scaling import answered

SLICE_ROWS = 1024
"""Ciphertexts of a slice's sums: 8 MB under the big key, enough of them to keep the kernel busy, and few enough that progress is seen."""
BUSY, MOST_TOGETHER, ROWS_TOGETHER = 128, 8, 4096
"""For ``images_together``: look-ups of a layer that are enough, images, and ciphertexts of their largest values at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State(Generic[T]):
    """What an evaluation has between two slices.

    Attributes:
        stages: how many are done.
        lookups: how many were for them, and for the chain that is under way.
        values: what later stages read, by layer.
        source: the joined input of the chain that is under way; None between two chains, as the next ones.
        rows: its result so far, of the first channels.
        channels: how many these are.
    """

    stages: int
    lookups: int
    values: Mapping[str, T]
    source: T | None = None
    rows: T | None = None
    channels: int = 0

    @classmethod
    def first(cls, x: T) -> Self:
        """Of an evaluation that begins with these values of the input."""
        return cls(stages=0, lookups=0, values={IMAGE: x})


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """State after a layer, or after a slice of several layers' channels.

    Attributes:
        layer: name of the layer that is under way or done; of several, the last.
        index: its place, from 0.
        lookups_done: look-ups so far, of ``lookups_total``.
        seconds: since the evaluation began.
        answers: the packed logits of each image, with the last item only.
        snapshot: gives the state of the moment, from which another evaluation can go on; to be called before the next item is asked for.
            Not with the last item.
    """

    layer: str
    index: int
    lookups_done: int
    lookups_total: int
    seconds: float
    answers: tuple[PackedAnswer, ...] = ()
    snapshot: Callable[[], State[LweCiphertextList]] | None = None

    @property
    def answer(self) -> PackedAnswer | None:
        """The packed logits of the only image, with the last item only."""
        return self.answers[0] if self.answers else None

    @classmethod
    def of(
        cls,
        done: SliceDone[Any],
        program: Program,
        *,
        seconds: float,
        answers: tuple[PackedAnswer, ...],
        snapshot: Callable[[], State[LweCiphertextList]] | None = None,
    ) -> Self:
        """After a slice."""
        return cls(
            layer=done.layer,
            index=done.index,
            lookups_done=done.lookups_done,
            lookups_total=program.lookups,
            seconds=seconds,
            answers=answers,
            snapshot=snapshot,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceDone(Generic[T]):
    """A layer, or a slice of several layers' channels, is done; see Progress.

    Attributes:
        logits: with the last item only.
        snapshot: not with the last item.
    """

    layer: str
    index: int
    lookups_done: int
    logits: T | None
    snapshot: Callable[[], State[T]] | None


class SlicedCircuit(Circuit[T], Protocol[T]):
    """A circuit whose values fill a memory, so that it is evaluated in slices.

    Attributes:
        slice_rows: ciphertexts of a slice's sums.
        slices_at_once: how many slices are under way at a time; if more than one, each in a thread of its own.
    """

    slice_rows: int
    slices_at_once: int

    def rows(self, x: T, start: int, stop: int) -> T:
        """The values from ``start`` up to ``stop``."""

    def room(self, count: int, like: T) -> T:
        """Room for ``count`` values of the kind of ``like``."""

    def put(self, room: T, start: int, part: T) -> None:
        """Writes values into a room, from ``start`` on."""


Lookup = Callable[[LweCiphertextList, FloatArray, NDArray[np.int32], NDArray[np.int32] | None], LweCiphertextList]
"""Ciphertexts, tables, the index of each ciphertext's table, and second places -> the looked-up ciphertexts; see pbs.pbs."""


@dataclass(frozen=True, slots=True)
class RemoteLookups:
    """Workers that compute look-ups in place of this process.

    Attributes:
        lookup: shares look-ups among them; called by several threads.
        workers: how many there are.
    """

    lookup: Lookup
    workers: int


class EncryptedCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on LWE ciphertexts.

    A list is under the CKKS input key, under the big key, or under both one after the other. The last comes from adding the first two (a
    max-pool right after the first linear layer) and costs a second key switch, or a longer merge, at its next look-up.

    Of several images the rows of a value follow one another.
    """

    def __init__(self, keys: ServerKeys, *, threads: int, remote: RemoteLookups | None = None, images: int = 1) -> None:
        """Prepare.

        Args:
            keys: of the ciphertexts' owner.
            threads: of the kernel.
            remote: computes the look-ups, in place of pbs here; linear layers do not wait for it.
            images: that are evaluated together.
        """
        self.keys = keys
        self.threads = threads
        self.images = images
        if remote is None:
            self._lookup: Lookup = lambda x, tables, index, second: pbs.pbs(
                x, keys, tables, index, second=second, threads=threads
            )
            self.slice_rows, self.slices_at_once = SLICE_ROWS // images, 1
        else:
            self._lookup = remote.lookup
            self.slice_rows, self.slices_at_once = SLICE_ROWS // images * remote.workers, 2

    def linear(self, x: LweCiphertextList, layer: LinearLayer, shape: Shape) -> LweCiphertextList:
        """The layer's integer combinations of rows."""
        entries = layer.matrix(shape)
        matrix = lwe.ShiftMatrix.from_entries(
            entries.rows, entries.columns, entries.row, entries.column, entries.values
        )
        result = lwe.linear(replace(x, data=self._by_value(x)), matrix, threads=self.threads)
        return replace(x, data=result.data.reshape(-1, x.data.shape[1]))

    def add_constant(self, x: LweCiphertextList, turns: FloatArray) -> LweCiphertextList:
        """Constants on the bodies."""
        return lwe.add_constant(x, np.repeat(lwe.to_words(turns), self.images))

    def add(self, a: LweCiphertextList, b: LweCiphertextList) -> LweCiphertextList:
        """Sum of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return replace(a, data=a.data + b.data)

    def subtract(self, a: LweCiphertextList, b: LweCiphertextList) -> LweCiphertextList:
        """Difference of rows, under the keys of both."""
        a, b = self._under_same_keys(a, b)
        return replace(a, data=a.data - b.data)

    def select(self, x: LweCiphertextList, index: IntArray) -> LweCiphertextList:
        """The rows at the given places."""
        return replace(x, data=self._by_value(x)[index].reshape(-1, x.data.shape[1]))

    def join(self, parts: list[LweCiphertextList]) -> LweCiphertextList:
        """All rows, one part after the other, under the keys of all; a single part is not copied."""
        if len(parts) == 1:
            return parts.pop()
        mixed = len({(part.input_words, part.dimension) for part in parts}) > 1
        like = self._under_both_keys(self.rows(parts[0], 0, 0)) if mixed else parts[0]
        joined, start = self.room(sum(map(len, parts)) // self.images, like), 0
        del like
        while parts:
            part = parts.pop(0)
            self.put(joined, start, self._under_both_keys(part) if mixed else part)
            start += len(part) // self.images
        return joined

    def lookup(
        self,
        x: LweCiphertextList,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> LweCiphertextList:
        """Key switch, modulus switch, blind rotation, sample extraction."""
        return self._lookup(x, tables, np.repeat(table_index, self.images), second)

    def rows(self, x: LweCiphertextList, start: int, stop: int) -> LweCiphertextList:
        """The rows of the values from ``start`` up to ``stop``; not copied."""
        return replace(x, data=x.data[start * self.images : stop * self.images])

    def room(self, count: int, like: LweCiphertextList) -> LweCiphertextList:
        """Room for the rows of ``count`` values under the keys of ``like``."""
        return replace(like, data=np.empty((count * self.images, like.data.shape[1]), dtype=np.uint32))

    def put(self, room: LweCiphertextList, start: int, part: LweCiphertextList) -> None:
        """Writes rows into a room, from the value ``start`` on."""
        room.data[start * self.images : start * self.images + len(part)] = part.data

    def _by_value(self, x: LweCiphertextList) -> NDArray[np.uint32]:
        """The rows of each value as one; not copied."""
        return x.data.reshape(len(x) // self.images, -1)

    def _under_same_keys(
        self, a: LweCiphertextList, b: LweCiphertextList
    ) -> tuple[LweCiphertextList, LweCiphertextList]:
        if (a.input_words, a.dimension) == (b.input_words, b.dimension):
            return a, b
        return self._under_both_keys(a), self._under_both_keys(b)

    def _under_both_keys(self, x: LweCiphertextList) -> LweCiphertextList:
        """The same rows with a mask of zeros for the key that they lack."""
        params = self.keys.params
        input_words = params.input_ring.ring_degree
        both = input_words + params.big_dimension
        if x.dimension == both:
            return x
        data = np.zeros((len(x), both + 1), dtype=np.uint32)
        start = 0 if x.input_words else input_words
        data[:, start : start + x.dimension] = x.data[:, : x.dimension]
        data[:, both] = x.data[:, x.dimension]
        return replace(x, data=data, input_words=input_words)


def run(
    program: Program,
    keys: ServerKeys,
    images: Sequence[Sequence[CkksCiphertext]],
    *,
    threads: int = 1,
    remote: RemoteLookups | None = None,
    start: State[LweCiphertextList] | None = None,
) -> Iterator[Progress]:
    """Evaluates a Program on encrypted images of one client, chain by chain and slice by slice.

    Args:
        program: the network.
        keys: expanded evaluation keys of the ciphertexts' owner.
        images: one, or several that are evaluated together, which keeps the kernel busy if layers are small. Of each the ciphertexts of
            its values in C order, all in one or some in each.
        threads: of the kernel.
        remote: what computes look-ups; by default this process does.
        start: the state of an earlier evaluation of the same images, to go on from; by default the images.

    Yields:
        Progress after every slice, with the look-ups of each image; the last item has their answers.

    Raises:
        BadShapeError: the ciphertexts hold another number of values than the Program's input, or there is no image.
        WrongParamsError: keys and ciphertexts do not belong to one parameter set, the Program's or one that may stand in for it.
    """
    for image in images:
        check_images(program, keys.params, image)
    if not images:
        raise BadShapeError("there is no image to evaluate; give one or more")
    if not program.lookups:
        yield multiplied(program, keys, images, threads=threads)
        return
    started = perf_counter()
    bindings = [Binding.of(image, program.digest) for image in images]
    circuit = EncryptedCircuit(keys, threads=threads, remote=remote, images=len(images))
    if start is None:
        pixels = [lwe.joined([lwe.sample_extract(ciphertext) for ciphertext in image]) for image in images]
        start = State.first(lwe.in_turn(pixels))
        del pixels
    slices = walk(program, circuit, start, keys.params.polynomial_size)
    del start
    for done in slices:
        answers: tuple[PackedAnswer, ...] = ()
        if done.logits is not None:
            answers = tuple(
                packing.packing_key_switch(lwe.every(done.logits, i, len(images)), keys, binding, threads=threads)
                for i, binding in enumerate(bindings)
            )
        yield Progress.of(done, program, seconds=perf_counter() - started, answers=answers, snapshot=done.snapshot)


def images_together(program: Program) -> int:
    """How many images of a request ``run`` should be given at a time: as it takes to fill small layers."""
    stages = [stage.lookups for stage in program.stages if stage.lookups]
    if not stages:
        return 1
    largest = max(flat_size(shape) for shape in (program.input.shape, *(s.output_shape for s in program.stages)))
    return max(1, min(MOST_TOGETHER, -(-BUSY * len(stages) // sum(stages)), ROWS_TOGETHER // largest))


def multiplied(
    program: Program, keys: packing.AnswerKeys, images: Sequence[Sequence[CkksCiphertext]], *, threads: int = 1
) -> Progress:
    """The only progress of a Program without look-ups, with its answers; images are one ciphertext each.

    Raises:
        BadShapeError: an image is of several ciphertexts, or they are no products' (ciphertexts.ciphertext_type).
    """
    started, layer = perf_counter(), program.layers[-1]
    assert isinstance(layer, Dense), "the Program has checked it"
    bias = np.zeros(len(layer.weight)) if layer.bias is None else layer.bias.astype(np.float64)
    weight = answered(layer.weight.astype(np.int32), program.output.refinement, axis=0)
    turns = answered(bias, program.output.refinement) * program.input.delta
    answers = []
    for image in images:
        if len(image) != 1:
            raise BadShapeError(f"an image is {len(image)} ciphertexts; without look-ups it is one")
        binding = Binding.of(image, program.digest)
        answers.append(packing.packing_products(image[0], weight, turns, keys, binding, threads=threads))
    return Progress(
        layer=layer.name,
        index=len(program.layers) - 1,
        lookups_done=0,
        lookups_total=0,
        seconds=perf_counter() - started,
        answers=tuple(answers),
    )


def check_images(program: Program, params: ParameterSet, ciphertexts: Sequence[CkksCiphertext]) -> None:
    """Raises what ``run`` raises for an image that the program, or the keys' parameter set, does not fit."""
    own = parameter_sets.get(program.params)
    if any(ciphertext.params.id != params.id for ciphertext in ciphertexts) or not noise.may_stand_in(params, own):
        raise WrongParamsError(
            f"program {program.name!r} is made for {program.params}; the keys are under {params.name}"
        )
    messages = sum(len(ciphertext.c0) for ciphertext in ciphertexts)
    if messages != flat_size(program.input.shape):
        raise BadShapeError(f"{messages} values are encrypted; the program takes {program.input.shape}")


def walk(program: Program, circuit: SlicedCircuit[T], start: State[T], polynomial_size: int) -> Iterator[SliceDone[T]]:
    """Evaluates a Program on a circuit, chain by chain and slice by slice.

    Args:
        program: the network.
        circuit: its operations.
        start: the values of the input, or what an earlier walk had between two slices.
        polynomial_size: N, points of a table on half the torus.

    Yields:
        What is done after every slice; the last item has the logits.
    """
    values, done, index = dict(start.values), start.lookups, 0
    for chain in chains(program):
        index += len(chain)
        if index <= start.stages:
            continue
        source = start.source
        if source is None:
            source = program.take(values, chain[0], circuit.join)
        slices = Slices(chain, source, circuit, polynomial_size)
        slices.go_on(start.rows, start.channels)
        start = State(stages=0, lookups=0, values={})  # lets go of what it held
        for lookups in slices.run():
            done += lookups
            logits, snapshot = None, None
            if not slices.complete:
                snapshot = partial(slices.state, index - len(chain), done, values)
            elif index < len(program.stages):
                values[chain[-1].layer.name] = slices.result
                snapshot = partial(_between, index, done, values)
            else:
                logits = slices.result
            yield SliceDone(
                layer=chain[-1].layer.name, index=index - 1, lookups_done=done, logits=logits, snapshot=snapshot
            )
        del source, slices


def _between(stages: int, lookups: int, values: Mapping[str, T]) -> State[T]:
    """Of an evaluation that is between two chains."""
    return State(stages=stages, lookups=lookups, values=dict(values))


def chains(program: Program) -> Iterator[list[Stage]]:
    """The stages in order, those together that can be evaluated in slices of channels without forming what lies between them."""
    readers = Counter(name for stage in program.stages for name in stage.sources)
    chain: list[Stage] = []
    for stage in program.stages:
        if chain and not (
            stage.sources == (chain[-1].layer.name,)
            and readers[chain[-1].layer.name] == 1
            and stage.layer.channelwise
            and chain[0].layer.part(0, 1) is not None
        ):
            yield chain
            chain = []
        chain.append(stage)
    yield chain


class Slices(Generic[T]):
    """A chain of stages on one input, evaluated in slices of output channels."""

    def __init__(self, chain: Sequence[Stage], x: T, circuit: SlicedCircuit[T], polynomial_size: int) -> None:
        """Prepares the evaluation; ``run`` does the work."""
        self.chain, self.x, self.circuit, self.polynomial_size = chain, x, circuit, polynomial_size
        self.channels = chain[-1].output_shape[0] // prod(stage.layer.results for stage in chain)
        self.per_channel = flat_size(chain[-1].output_shape) // self.channels
        self.rows: T | None = None
        self.done = 0
        self.complete = False

    def go_on(self, rows: T | None, channels: int) -> None:
        """Takes the first channels of an earlier evaluation, if there are any."""
        if rows is not None:
            self._put(rows, 0, channels)

    def state(self, stages: int, lookups: int, values: Mapping[str, T]) -> State[T]:
        """Of an evaluation that is here; ``stages``, ``lookups`` and ``values`` are those of State."""
        assert self.rows is not None, "nothing has been evaluated"
        rows = self.circuit.rows(self.rows, 0, self.done * self.per_channel)
        return State(stages=stages, lookups=lookups, values=dict(values), source=self.x, rows=rows, channels=self.done)

    @property
    def result(self) -> T:
        """The whole result, once ``run`` is through."""
        assert self.complete and self.rows is not None, "the slices are still running"
        return self.rows

    def run(self) -> Iterator[int]:
        """Evaluates slice after slice; yields the look-ups of each."""
        if self.chain[0].layer.part(0, 1) is None:
            (stage,) = self.chain
            self.rows = stage.layer.apply(self.circuit, self.x, stage.scale(self.polynomial_size))
            self.complete = True
            yield stage.lookups
            return
        largest = max(flat_size(stage.output_shape[1:]) for stage in self.chain)
        step = max(1, self.circuit.slice_rows // largest)
        bounds = [(start, min(start + step, self.channels)) for start in range(self.done, self.channels, step)]
        for (start, stop), (part, lookups) in zip(bounds, self._in_order(bounds), strict=True):
            self._put(part, start, stop)
            self.complete = stop == self.channels
            yield lookups

    def _in_order(self, bounds: Iterable[tuple[int, int]]) -> Iterator[tuple[T, int]]:
        """Result and look-ups of each slice; `slices_at_once` of them are under way while the first of these is waited for."""
        if self.circuit.slices_at_once == 1:
            yield from (self._slice(start, stop) for start, stop in bounds)
            return
        running: deque[Future[tuple[T, int]]] = deque()
        pool = ThreadPoolExecutor(self.circuit.slices_at_once)
        try:
            for start, stop in bounds:
                running.append(pool.submit(self._slice, start, stop))
                if len(running) == self.circuit.slices_at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _put(self, part: T, start: int, stop: int) -> None:
        if self.rows is None:
            self.rows = self.circuit.room(self.channels * self.per_channel, part)
        self.circuit.put(self.rows, start * self.per_channel, part)
        self.done = stop

    def _slice(self, start: int, stop: int) -> tuple[T, int]:
        x, lookups = self.x, 0
        for stage in self.chain:
            layer = stage.layer.part(start, stop)
            assert layer is not None, "a chain holds layers that can be divided"
            scale = stage.scale(self.polynomial_size)
            if layer.channelwise:
                scale = replace(scale, shape=(stop - start, *stage.shape[1:]))
                if stage is self.chain[0]:
                    per_channel = flat_size(stage.shape[1:])
                    x = self.circuit.rows(x, start * per_channel, stop * per_channel)
            lookups += layer.lookups(scale.shape)
            x = layer.apply(self.circuit, x, scale)
            start, stop = start * layer.results, stop * layer.results
        return x, lookups
