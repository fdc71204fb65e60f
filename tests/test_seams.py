"""Rooms meet by declared types: attributes are not looked up by name, and classes of other rooms are not asked for."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sources import PACKAGE, python_files, tree

MOST_ANY = 300
MOST_IGNORED = 28  # lines with ``type: ignore``
LOOKED_UP = {  # getattr and hasattr with a constant name, by file: what the object is
    "cli/arguments.py": 1,  # arguments of any command
    "cli/main.py": 2,  # the module of a command
    "data/dataset.py": 2,  # a user's image set
    "data/images.py": 1,  # a picture of Pillow
    "data/loader.py": 1,  # the operating system
    "detection_model/model.py": 1,  # a user's network
    "detection_model/postprocess_options.py": 5,  # a user's network, branch or post-processing
    "detectors/parts.py": 3,  # a user's network: other rooms get its parts from here
    "engine/fsdp.py": 2,  # tensors and modules of torch.distributed
    "engine/model.py": 1,  # a network of timm
    "export/metadata.py": 1,  # the name of a function
    "export/writing.py": 1,  # a post-processing that may have no threshold
    "inference/sources.py": 2,  # a user's open file
    "lab/worked_weights.py": 1,  # the name of a function
    "models/criteria.py": 2,  # a criterion that may have a box coder
    "models/options.py": 2,  # a type or function
    "models/schemes.py": 1,  # a user's head
    "nn/backbones/download.py": 2,  # the configuration of a network of timm
    "nn/backbones/shufflenet.py": 1,  # an error
    "nn/backbones/timm_features.py": 6,  # modules of timm
    "plugins.py": 1,  # a module
    "published/fetch.py": 2,  # an error
    "storage/hub.py": 2,  # an error
}
ASKED_FOR = {  # isinstance of a class of another room, by room: why
    "api": 3,  # what a user gives
    "assign": 1,  # the kinds of predictions
    "cli": 2,  # the lab's figures of dual weighting
    "criteria": 7,  # the kinds of predictions, values by size, and schedules
    "detectors": 4,  # ``detectors.parts`` finds the parts of a network for all other rooms
    "export": 1,  # soft-NMS becomes a part of the graph
    "lab": 8,  # the steps of each assigner
    "models": 35,  # builds, exchanges and describes parts of known classes
    "pairwise": 1,  # the kinds of predictions
    "structures.py": 3,  # the structures that hold tensors
}


def _named_lookups(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        named = (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
        )
        if named and isinstance(node.args[1], ast.Constant):
            yield node


def _classes_asked_for(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
            yield from {ast.unparse(kind).rpartition(".")[2] for kind in kinds}


def _file(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _classes_by_room(paths: list[Path]) -> dict[str, str]:
    nodes = ((path, node) for path in paths for node in ast.walk(tree(path)))
    return {node.name: path.relative_to(PACKAGE).parts[0] for path, node in nodes if isinstance(node, ast.ClassDef)}


def test_attributes_are_looked_up_by_name_only_where_others_made_the_object() -> None:
    counts = {_file(path): sum(1 for _ in _named_lookups(tree(path))) for path in python_files()}
    more = {file: count for file, count in counts.items() if count > LOOKED_UP.get(file, 0)}
    assert not more, f"declare the attribute in poise.protocols, or read it through poise.detectors.parts: {more}"


def test_rooms_do_not_ask_for_the_classes_of_others() -> None:
    room_of_class = _classes_by_room(python_files())
    counts: Counter[str] = Counter()
    for path in python_files():
        room = path.relative_to(PACKAGE).parts[0]
        counts[room] += sum(room_of_class.get(kind, room) != room for kind in _classes_asked_for(tree(path)))
    more = {room: count for room, count in counts.items() if count > ASKED_FOR.get(room, 0)}
    assert not more, f"use a method or attribute of the structure or protocol: {more}"


def test_few_values_have_no_type() -> None:
    nodes = [node for path in python_files() for node in ast.walk(tree(path))]
    untyped = sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)
    assert untyped <= MOST_ANY, "write the type, or object where nothing is read of the value"
    ignored = [line for path in python_files() for line in path.read_text().splitlines() if "# type: ignore" in line]
    assert len(ignored) <= MOST_IGNORED


@pytest.mark.parametrize("text, count", [("getattr(x, 'a', None)", 1), ("hasattr(x, 'a')", 1), ("getattr(x, a)", 0)])
def test_the_reader_of_lookups_sees_them(text: str, count: int) -> None:
    assert len(list(_named_lookups(ast.parse(text)))) == count
    assert set(_classes_asked_for(ast.parse("isinstance(x, (boxes.A, B)) or isinstance(x, C)"))) == {"A", "B", "C"}
