"""Server-sent events: whole ones come out, however they are cut, and nothing fills the memory."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciphershift import errors
from ciphershift.client import _sse as sse
from ciphershift.client._sse import MAX_EVENT_BYTES, Event, EventReader

STREAM = (
    b": hello\n\nevent: progress\nid: 1\ndata: {}\n\n"
    b"data: a\r\ndata:b\r\nretry: 5\r\n\r\n"
    b"event: alone\n\nid: \xc3\xa9\ndata\n\nid: 7\ndata: \xe2\x82\xac\n\ndata: cut off"
)
EVENTS = [
    Event(name="progress", data="{}", id="1"),
    Event(name="message", data="a\nb", id="1"),
    Event(name="message", data="", id="1"),
    Event(name="message", data="€", id="7"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_do_not_depend_on_how_they_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    chunks = [STREAM[a:b] for a, b in pairwise(places)]
    assert [event for chunk in chunks for event in reader.feed(chunk)] == EVENTS


def endless(piece: bytes) -> Iterator[bytes]:
    chunk = piece * (8192 // len(piece))
    for _ in range(10_000):  # 80 MB
        yield chunk


@pytest.mark.parametrize(
    "piece", [b"x", b"data: x\n", b"data:\n", b": x\n", b"\n", b"id: 1\n\n", b"\r\n", b"event: x\n", b"x:\n"]
)
def test_an_endless_stream_without_an_event_is_refused_before_it_fills_the_memory(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 64 << 10
    monkeypatch.setattr(sse, "MAX_IDLE_BYTES", limit)
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", limit // 4)
    reader = EventReader()
    tracemalloc.start()
    fed = 0
    with pytest.raises(errors.TooLargeError):
        for chunk in endless(piece):
            fed += len(chunk)
            assert list(reader.feed(chunk)) == []
    assert fed <= 2 * limit
    assert tracemalloc.get_traced_memory()[1] < 8 * limit
    tracemalloc.stop()


def test_a_large_event_is_refused() -> None:
    data = b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n"
    with pytest.raises(errors.TooLargeError):
        list(EventReader().feed(data))
    assert len(list(EventReader().feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6) + b"\n\n"))) == 1


def test_heartbeats_between_events_do_no_harm() -> None:
    reader = EventReader()
    for _ in range(600):
        for _ in range(100):
            assert list(reader.feed(b": ping and again\n\n" * 2)) == []
        assert len(list(reader.feed(b"data: x\n\n"))) == 1


def test_bytes_that_are_no_text_are_malformed() -> None:
    with pytest.raises(errors.MalformedError):
        list(EventReader().feed(b"data: \xff\n\n"))


@pytest.mark.parametrize("identifier", ["a\x00b", "a\x1bb", "é"])
def test_an_id_that_could_not_be_sent_back_is_ignored(identifier: str) -> None:
    reader = EventReader()
    (event,) = reader.feed(f"id: 3\nid: {identifier}\ndata: x\n\n".encode())
    assert event.id in ("", "3")
