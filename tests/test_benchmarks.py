"""The regression guard of benchmarks: files of one shape, compared measure by measure, with an exit status."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from support.sources import ROOT

from benchmarks import mutations


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("record")


@pytest.fixture
def compare(record: ModuleType) -> ModuleType:
    return importlib.import_module("compare")


def written(record: ModuleType, path: Path, seconds: float, ratio: float, benchmark: str = "steps") -> Path:
    row = {"case": "atss", "step_s": seconds, "peer_ratio": ratio, "objects": 7, "peer time": 5.0}
    record.write(path, benchmark, {"size": 320, "json": path}, [row])
    return path


def test_a_file_says_machine_versions_date_and_settings(record: ModuleType, tmp_path: Path) -> None:
    content = json.loads(written(record, tmp_path / "new" / "a.json", 1.0, 2.0).read_text())
    assert content["settings"] == {"size": 320} and content["rows"][0]["case"] == "atss"
    assert content["machine"]["cores"] > 0 and "torch" in content["versions"] and content["date"].endswith("Z")
    with pytest.raises(ValueError, match="cases must differ"):
        record.write(None, "steps", {}, [{"case": "a"}, {"case": "a"}])


@pytest.mark.parametrize(
    ("seconds", "ratio", "status"), [(1.0, 2.0, 0), (1.09, 1.9, 0), (1.2, 2.0, 1), (0.5, 1.5, 1), (0.5, 3.0, 0)]
)
def test_worse_by_more_than_the_tolerance_fails(
    record: ModuleType, compare: ModuleType, tmp_path: Path, seconds: float, ratio: float, status: int
) -> None:
    before = written(record, tmp_path / "a.json", 1.0, 2.0)
    after = written(record, tmp_path / "b.json", seconds, ratio)
    assert compare.main([str(before), str(after), "--tolerance", "10%"]) == status


def test_only_ratios_leave_seconds_out(
    record: ModuleType, compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = written(record, tmp_path / "a.json", 1.0, 2.0), written(record, tmp_path / "b.json", 9.0, 2.0)
    assert compare.main([str(before), str(after), "--only", "ratio"]) == 0
    output = capsys.readouterr().out
    assert "peer_ratio" in output and "step_s" not in output and "0 of 1 measures" in output


def test_a_measure_that_is_gone_fails(record: ModuleType, compare: ModuleType, tmp_path: Path) -> None:
    before = written(record, tmp_path / "a.json", 1.0, 2.0)
    record.write(tmp_path / "b.json", "steps", {}, [{"case": "atss", "step_s": 1.0}])
    assert compare.main([str(before), str(tmp_path / "b.json")]) == 1


def test_what_cannot_be_compared_is_said(
    record: ModuleType, compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, other = (
        written(record, tmp_path / "a.json", 1.0, 2.0),
        written(record, tmp_path / "b.json", 1, 2, "loading"),
    )
    assert compare.main([str(before), str(other)]) == 2
    assert "different benchmarks" in capsys.readouterr().err
    (tmp_path / "c.json").write_text("[]")
    assert compare.main([str(before), str(tmp_path / "c.json")]) == 2
    assert "not written by a benchmark" in capsys.readouterr().err


def test_faults_of_the_proof_that_tests_find_them_can_still_be_put_in(tmp_path: Path) -> None:
    """benchmarks/mutations.py puts each of them into a copy of the sources and runs the tests that should notice."""
    assert len({fault.name for fault in mutations.FAULTS}) == len(mutations.FAULTS) >= 10
    mutations.copy_sources(tmp_path / "copy")
    for fault in mutations.FAULTS:
        file = tmp_path / "copy" / "src" / "poise" / fault.file
        text = mutations.put_in(fault, tmp_path / "copy")  # raises where the replaced text is gone
        assert file.read_text(encoding="utf-8") != text
        file.write_text(text, encoding="utf-8")
        for word in fault.tests.split():
            assert (ROOT / word.split("::")[0]).is_file(), f"{fault.name}: {word} is gone"
