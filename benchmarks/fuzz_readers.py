"""Coverage-guided fuzzing of everything that reads annotations: no error but the documented one, no hang, no hunger.

    python benchmarks/fuzz_readers.py [--readers coco yolo ...] [--seconds 120] [--seed 0] [--crashes FOLDER]

A file of a tiny data set is mutated (bytes, tokens of the format, the structure of JSON and YAML), the set is opened
with ``on_bad_data="skip"``, and an input that reached a new step from line to line of poise's own code joins the
corpus. What counts as a crash: another exception than ``DataError`` (``ValueError`` for recipes), a warning, more than
5 seconds of processor time for one input, more than 1 GB of memory beyond the start. Every reader gets ``--seconds`` of
processor time. Exit status 1 on a crash.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import inspect
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import yaml
from PIL import Image

import poise
from poise.data import DataError, open_data, with_proposals
from poise.recipes import get_recipe, load_recipe, save_recipe

PACKAGE = str(Path(poise.__file__).parent)
PATIENCE = 5  # seconds for one input
HUNGER = 1 << 30  # bytes of address space beyond the start
LARGEST = 20_000  # bytes of an input
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 10**30, -0.0, 1e308, float("nan"), float("inf"), "", "a", "10.png", "..",
    "../x.png", "/etc/passwd", "C:\\x.png", "\\\\host\\x.png", "a\0b", "\ud800", "ä" * 300, [], [1, 2, 3, 4], {},
    {"a": []},
]  # fmt: skip
TOKENS = [
    b"nan", b"-1", b"1e999", b"0.5", b"99999999999999999999", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"..", b"/",
    b"\\", b"null", b"[", b"]", b"{", b"}", b"<object>", b"</object>", b"<!DOCTYPE a>", b"&amp;", b"<![CDATA[",
    b"names: ", b"nc: ", b"path: ", b"train: ", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"? ", b"- ",
    b"0 0.5 0.5 0.1 0.1\n",
    b'"image_id"', b'"bbox"', b'"counts"', b'"size"', b'"segmentation"', b"1_0", b"0x1f", b"2001-01-01", b"~", b"|\n",
]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A data set on disk, the file of it that is mutated, and how it is read."""

    modules: tuple[str, ...]  # whose coverage is measured
    write: Callable[[Path], Path]  # writes the data set, returns the file
    read: Callable[[Path], Any]
    error: type[Exception] = DataError


@dataclass
class Result:
    """What came of fuzzing one reader."""

    executions: int = 0
    seconds: float = 0.0
    refused: int = 0
    slowest: float = 0.0
    corpus: list[bytes] = field(default_factory=list)
    arcs: set[tuple[CodeType, int, int]] = field(default_factory=set)
    crashes: dict[str, bytes] = field(default_factory=dict)  # by the line that raised them


class Hang(BaseException):
    """One input took too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, help="folder for the inputs that crash")
    options = parser.parse_args()
    warnings.simplefilter("error")
    print("| reader | executions | refused | corpus | steps between lines | lines covered | slowest | crashes |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    crashed = False
    for name in options.readers:
        found = fuzz(READERS[name], options.seconds, random.Random(options.seed))
        print(line(name, found), flush=True)
        crashed |= bool(found.crashes)
        for number, (location, content) in enumerate(found.crashes.items()):
            print(f"{name}: {location}", file=sys.stderr)
            if options.crashes is not None:
                options.crashes.mkdir(parents=True, exist_ok=True)
                (options.crashes / f"{name}-{number}").write_bytes(content)
    sys.exit(1 if crashed else 0)


def fuzz(reader: Reader, seconds: float, draw: random.Random, executions: int = sys.maxsize) -> Result:
    """Mutate until the time or the number of executions is used up."""
    result = Result()
    with tempfile.TemporaryDirectory() as folder, limited_memory():
        root = Path(folder)
        file = reader.write(root)
        result.corpus.append(file.read_bytes())
        start = time.process_time()
        while result.executions < executions and time.process_time() - start < seconds:
            content = result.corpus[0] if not result.executions else mutate(draw, result.corpus)
            file.write_bytes(content)
            _try(reader, root, content, result)
        result.seconds = time.process_time() - start
    return result


def _try(reader: Reader, root: Path, content: bytes, result: Result) -> None:
    """Read one input; keep it where it reached something new."""
    known, began = len(result.arcs), time.process_time()
    try:
        with within(PATIENCE), recorded(result.arcs):
            reader.read(root)
    except reader.error:
        result.refused += 1
    except (Exception, Hang) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "outside"
        result.crashes.setdefault(f"{type(error).__name__} at {where}: {str(error)[:100]!r}", content)
    result.slowest = max(result.slowest, time.process_time() - began)
    result.executions += 1
    if len(result.arcs) > known and result.executions > 1:
        result.corpus.append(content)


@contextlib.contextmanager
def recorded(arcs: set[tuple[CodeType, int, int]]) -> Iterator[None]:
    """Every step from line to line within poise meanwhile."""
    last: dict[FrameType, int] = {}

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            arcs.add((frame.f_code, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
        elif event == "return":
            last.pop(frame, None)
        return step

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return step if frame.f_code.co_filename.startswith(PACKAGE) else None

    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(None)


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """``Hang`` after so many seconds of processor time."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """At most ``HUNGER`` more bytes of address space meanwhile (where ``/proc`` says how much there is)."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        now = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + HUNGER, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def mutate(draw: random.Random, corpus: list[bytes]) -> bytes:
    """A changed copy of one input of the corpus, the newer ones more often."""
    content = corpus[max(draw.randrange(len(corpus)), draw.randrange(len(corpus)))]
    if draw.random() < 0.5 and (changed := _change_structure(draw, content)) is not None:
        return changed[:LARGEST]
    mutable = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        _change_bytes(draw, mutable, corpus)
    return bytes(mutable[:LARGEST])


def _change_bytes(draw: random.Random, content: bytearray, corpus: list[bytes]) -> None:
    position = draw.randrange(len(content) + 1)
    end = min(len(content), position + draw.choice((1, 1, 2, 4, 8, 16, 64, 256)))
    kind = draw.randrange(6)
    if kind == 0 and content:
        content[position % len(content)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[position:end]
    elif kind == 2:
        content[position:position] = draw.choice(TOKENS)
    elif kind == 3:
        content[position:end] = draw.choice(TOKENS)
    elif kind == 4:
        content[position:position] = content[position:end] * draw.choice((1, 2, 100))
    else:
        other = draw.choice(corpus)
        start = draw.randrange(len(other) + 1)
        content[position:end] = other[start : start + draw.choice((4, 16, 64, 256))]


def _change_structure(draw: random.Random, content: bytes) -> bytes | None:
    """JSON or YAML with one value replaced, doubled, removed or put elsewhere; None where it is neither."""
    tree, write = _tree(content)
    if write is None:
        return None
    containers = list(_containers(tree))
    if not containers:
        return write(draw.choice(VALUES)).encode()
    holder, key = draw.choice(containers)
    kind = draw.randrange(5)
    if kind < 2:
        holder[key] = draw.choice(VALUES)
    elif kind == 2:
        del holder[key]
    elif kind == 3:
        holder[key] = copy.deepcopy(draw.choice(containers)[0])
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[draw.choice([str(key), "id", "ignore", "iscrowd", "neg_category_ids", "coco_url", "extra"])] = holder[
            key
        ]
    return write(tree).encode("utf-8", "surrogatepass")


def _tree(content: bytes) -> tuple[Any, Callable[[Any], str] | None]:
    """The value that a text stands for, and what writes it again."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(content), json.dumps
    with contextlib.suppress(ValueError, RecursionError, yaml.YAMLError, LookupError, AttributeError):
        tree = yaml.safe_load(content)
        if isinstance(tree, dict):
            return tree, lambda value: yaml.safe_dump(value, sort_keys=False)
    return None, None


def _containers(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from _containers(value)


def line(name: str, found: Result) -> str:
    """A line of the table."""
    seen = {(code.co_filename, number) for code, _, number in found.arcs}
    files = [f"{PACKAGE}/{module}" for module in READERS[name].modules]
    wanted = {(file, number) for file in files for number in _code_lines(file)}
    share = f"{len(wanted & seen)} of {len(wanted)} ({', '.join(READERS[name].modules)})"
    return (
        f"| {name} | {found.executions} | {found.refused} | {len(found.corpus)} | {len(found.arcs)} | {share} | "
        f"{found.slowest:.2f} s | {len(found.crashes)} |"
    )


def _code_lines(file: str) -> set[int]:
    """Lines within functions that hold code."""
    lines: set[int] = set()

    def visit(code: CodeType) -> None:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                if not constant.co_name.startswith("<") and constant.co_flags & inspect.CO_OPTIMIZED:
                    lines.update(number for _, _, number in constant.co_lines() if number)
                visit(constant)

    visit(compile(Path(file).read_text(encoding="utf-8"), file, "exec"))
    return lines


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24)).save(path)


def _coco_content() -> dict[str, Any]:
    box = {"image_id": 10, "category_id": 3, "bbox": [1.5, 2, 20, 10], "area": 200, "iscrowd": 0, "id": 1}
    mask = {**box, "id": 2, "image_id": 11, "segmentation": {"counts": "a", "size": [24, 32]}, "iscrowd": 1}
    images = [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 24} for i in (10, 11)]
    return {
        "images": images,
        "annotations": [box, mask],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "d"}],
    }


def _coco(root: Path, name: str = "annotations/instances_train.json", images: str = "train") -> Path:
    for number in (10, 11):
        _picture(root / images / f"{number}.png")
    file = root / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(_coco_content()))
    return file


def _lvis(root: Path) -> Path:
    file = _coco(root, "annotations/lvis_v1_train.json")
    content = _coco_content()
    for image in content["images"]:
        image |= {"coco_url": f"http://host/train/{image.pop('file_name')}", "neg_category_ids": [7]}
        image["not_exhaustive_category_ids"] = [3]
    for category in content["categories"]:
        category["frequency"] = "r"
    file.write_text(json.dumps(content))
    return file


def _yolo(root: Path) -> Path:
    for name in "ab":
        _picture(root / "images" / "train" / f"{name}.png")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: [images/train]\nnames: {0: cat, 1: dog}\n")
    labels = root / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "b.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.4 0.1 0.3 0.5\n")
    return labels / "a.txt"


def _yolo_description(root: Path) -> Path:
    _yolo(root)
    return root / "data.yaml"


def _yolo_list(root: Path) -> Path:
    _yolo(root)
    (root / "data.yaml").write_text("train: list.txt\nnc: 2\n")
    (root / "list.txt").write_text("images/train/a.png\n./images/train/b.png\n")
    return root / "list.txt"


def _voc(root: Path) -> Path:
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>12.5</ymax></bndbox>"
    one = f"<object><name>cat</name><difficult>1</difficult>{box}</object>"
    size = "<size><width>32</width><height>24</height><depth>3</depth></size>"
    for name in "ab":
        _picture(root / "JPEGImages" / f"{name}.png")
        text = f"<annotation><filename>{name}.png</filename>{size}{one}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    return root / "Annotations" / "a.xml"


def _voc_list(root: Path) -> Path:
    _voc(root)
    return root / "ImageSets" / "Main" / "train.txt"


def _proposals(root: Path) -> Path:
    _coco(root)
    records = [{"image_id": i, "bbox": [1, 2, 9.5, 8], "score": 0.5, "category_id": 1} for i in (10, 11, 12)]
    (root / "proposals.txt").write_text(json.dumps(records))
    return root / "proposals.txt"


def _recipe(root: Path) -> Path:
    save_recipe(get_recipe("atss_r50_fpn_1x"), root / "recipe.yaml")
    return root / "recipe.yaml"


def _open(root: Path) -> None:
    images = open_data(root, "train", "skip")
    json.dumps(images.to_coco())
    for index in range(len(images)):
        assert len(images[index].boxes) == len(images[index].labels)


READERS = {
    "coco": Reader(("data/coco.py",), _coco, _open),
    "roboflow": Reader(("data/coco.py",), lambda root: _coco(root, "train/_annotations.coco.json"), _open),
    "lvis": Reader(("data/coco.py",), _lvis, _open),
    "yolo labels": Reader(("data/yolo.py",), _yolo, _open),
    "yolo data.yaml": Reader(("data/yolo.py", "storage/plain_yaml.py"), _yolo_description, _open),
    "yolo list": Reader(("data/yolo.py",), _yolo_list, _open),
    "voc": Reader(("data/voc.py",), _voc, _open),
    "voc list": Reader(("data/voc.py",), _voc_list, _open),
    "proposals": Reader(
        ("data/proposals.py",),
        _proposals,
        lambda root: with_proposals(open_data(root, "train"), root / "proposals.txt", 5, "skip"),
    ),
    "recipe": Reader(
        ("recipes/convert.py", "storage/plain_yaml.py"),
        _recipe,
        lambda root: load_recipe(root / "recipe.yaml"),
        ValueError,
    ),
}


if __name__ == "__main__":
    main()
