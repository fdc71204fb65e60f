"""A tiny data set and a tiny trained run that every test of the command line may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny import TINY_MODEL

from poise.cli import main
from poise.data.demo import write_demo_data


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and four validation scenes of at most 96 pixels."""
    return write_demo_data(tmp_path_factory.mktemp("data") / "scenes", train=8, val=4, size=96)


@pytest.fixture(scope="session")
def trained(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one epoch, made by the command itself."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    words = ["train", "atss_r18_fpn", "--data", str(demo_data), "--out", str(out), "--epochs", "1", "--batch-size", "4"]
    assert main([*words, "--workers", "0", "--device", "cpu", *TINY_MODEL]) == 0
    return out
