"""A few moments of ``benchmarks/fuzz_readers.py`` on every reader, and that the fuzzer finds what it is to find."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest

from benchmarks.fuzz_readers import READERS, Reader, fuzz
from poise.data import DataError
from poise.storage import parse_yaml


@pytest.mark.parametrize("name", READERS)
def test_no_reader_falls(name: str) -> None:
    found = fuzz(READERS[name], 60.0, random.Random(7), executions=40)
    assert found.executions == 40 and not found.crashes
    assert found.slowest < 5


@pytest.mark.parametrize("fault", ["crash", "hang", "hunger"])
def test_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of JSON that falls on an empty list, never ends, or wants 4 GB."""
    monkeypatch.setattr("benchmarks.fuzz_readers.PATIENCE", 0.2)

    def read(root: Path) -> None:
        text = (root / "file").read_bytes()
        if b"!" in text:
            return
        if fault == "crash":
            raise ZeroDivisionError
        if fault == "hunger":
            bytearray(4 << 30)
        while fault == "hang":
            pass

    def write(root: Path) -> Path:
        (root / "file").write_bytes(b"0!0")
        return root / "file"

    found = fuzz(Reader((), write, read, DataError), 30.0, random.Random(0), executions=20)
    kinds = {"crash": "ZeroDivisionError", "hang": "Hang", "hunger": "MemoryError"}
    assert [location.split()[0] for location in found.crashes] == [kinds[fault]]


@pytest.mark.parametrize(
    "text", ["[" * 500_000, "a: " * 200_000, "- " * 400_000, "{a: " * 200_000, "? " * 300_000, "a: &a [1]\nb: *a"]
)
def test_nested_yaml_ends_soon(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError):
        parse_yaml(text)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "text", ["!!int ''", "!!float ''", "!!timestamp x", "!!bool x", "2001-99-99", "1:99999999:0", "\x1f"]
)
def test_odd_scalars_are_data_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert set(parse_yaml(f"a: {text}")) == {"a"}
