"""``poise check``: read a whole data set and report every fault and what it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from poise.data.check_images import Inspection, inspect_images
from poise.data.class_map import ClassMap, check_class_map, map_classes
from poise.data.errors import DataError
from poise.data.faults import FAULT_KINDS, Fault, FaultLog
from poise.data.folders import is_junk
from poise.data.image_set import ImageSet, different_classes
from poise.data.images import SUFFIXES, UNSUPPORTED
from poise.data.members import inside_tar
from poise.data.opening import choose_splits, find_splits
from poise.data.statistics import SplitStatistics, class_keys, count
from poise.recipes.values import plain_class_map

EXAMPLES = 5

Progress = Callable[[str, int, int], None]  # split, images done, images of the split
Faults = dict[Fault, set[str]]  # each fault with the splits in which it is; splits may share a file


@dataclass(frozen=True)
class Finding:
    """All faults of one kind."""

    kind: str
    severity: str  # "would be dropped" or "note"
    meaning: str
    policy: str  # what training does with them
    count: int
    examples: tuple[str, ...]  # the first few
    splits: tuple[str, ...] = ()  # in which they are
    in_training: int = 0  # how many are in splits that a training opens


@dataclass(frozen=True)
class CheckReport:
    """The result of :func:`check_data`."""

    path: str
    format: str
    splits: dict[str, SplitStatistics]
    findings: tuple[Finding, ...]  # those that would be dropped first
    training_splits: tuple[str, ...] = ()  # what a training opens where no split is named

    @property
    def dropped(self) -> int:
        """Records that training would leave out (or refuse to start for)."""
        return sum(finding.in_training for finding in self.findings if FAULT_KINDS[finding.kind].dropped)

    @property
    def dropped_elsewhere(self) -> int:
        """Such records in splits that a training does not open; an evaluation of these splits refuses them."""
        return sum(f.count - f.in_training for f in self.findings if FAULT_KINDS[f.kind].dropped)

    @property
    def exit_code(self) -> int:
        """3 when training would drop something, else 0 (the exit status of ``poise check``)."""
        return 3 if self.dropped else 0

    def to_dict(self) -> dict[str, object]:
        """Everything as plain values for JSON."""
        counts = {"dropped": self.dropped, "dropped_elsewhere": self.dropped_elsewhere}
        return {**asdict(self), **counts, "exit_code": self.exit_code}


def check_data(
    path: str | Path,
    full: bool = True,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    follow_links: bool = False,
    class_map: ClassMap | None = None,
) -> CheckReport:
    """Read all splits of a data set and report every fault.

    Args:
        path: as for :func:`poise.data.open_data`.
        full: decode every image and compare contents between splits; else only read the headers.
        progress: called with split, images done and images in all.
        workers: threads that decode; by default all cores.
        follow_links, class_map: as in :func:`poise.data.open_data`.

    Raises:
        DataError: there is no data set, or a class of the map does not exist.
    """
    readers, faults = find_splits(path, follow_links), Faults()
    trained = _trained(path, tuple(readers))
    sets = _open(readers, faults)
    if class_map:
        check_class_map(class_map, [name for one in sets.values() for name in one.class_names])
        sets = {name: map_classes(one, plain_class_map(class_map)) for name, one in sets.items()}
    inspections = {name: _inspect(image_set, full, progress, workers) for name, image_set in sets.items()}
    for name, results in inspections.items():
        _add(faults, (fault for result in results for fault in result.faults), name)
    for name, fault in _other_classes(sets, trained):
        _add(faults, [fault], name)
    everywhere = [*_shared_names(sets), *_shared_contents(inspections), *_empty_classes(sets)]
    _add(faults, everywhere, *sets)
    _add(faults, _unlisted(sets, list(faults)), *sets)
    formats = {image_set.format for image_set in sets.values()}
    statistics = {name: count(image_set) for name, image_set in sets.items()}
    return CheckReport(str(path), "/".join(sorted(formats)), statistics, _findings(faults, set(trained)), trained)


def _trained(path: str | Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The splits that a training opens; all of them where the user has to name them."""
    try:
        chosen = choose_splits(path, names, None, None)
    except DataError:
        return names
    return tuple(dict.fromkeys((chosen.train, chosen.val)))


def _add(faults: Faults, found: Iterable[Fault], *splits: str) -> None:
    for fault in found:
        faults.setdefault(fault, set()).update(splits)


def _open(readers: dict[str, Callable[[FaultLog], ImageSet]], faults: Faults) -> dict[str, ImageSet]:
    sets: dict[str, ImageSet] = {}
    for name, read in readers.items():
        log = FaultLog()
        try:
            sets[name] = read(log)
        except DataError as error:
            log.add("annotations-unreadable", f"split {name}", str(error))
        _add(faults, log, name)
    if {"train", "val", "trainval"} <= sets.keys():
        parts = {*sets["train"].image_ids(), *sets["val"].image_ids()}
        if set(sets["trainval"].image_ids()) <= parts:
            del sets["trainval"]  # the two others once more
    return sets


def _other_classes(sets: dict[str, ImageSet], trained: tuple[str, ...]) -> Iterable[tuple[str, Fault]]:
    """Splits whose classes are not those of the first split that a training opens."""
    first = next((sets[name] for name in trained if name in sets), None)
    for name, image_set in sets.items():
        if first is not None and name != first.name and (why := different_classes(first, image_set)):
            yield name, Fault("split-classes-differ", f"split {name}", why)


def _inspect(image_set: ImageSet, full: bool, progress: Progress | None, workers: int | None) -> list[Inspection]:
    if progress is None:
        return inspect_images(image_set, full, workers)
    return inspect_images(image_set, full, workers, lambda done, total: progress(image_set.name, done, total))


def _shared_names(sets: dict[str, ImageSet]) -> Iterable[Fault]:
    """Images that are in two splits: the same file, or the same id with the same file name."""
    owner: dict[object, str] = {}
    for name, image_set in sets.items():
        for file, image_id in zip(image_set.images.files.tolist(), image_set.image_ids(), strict=True):
            keys = (file, (image_id, file.rsplit("/", 1)[-1]))
            first = next((owner[key] for key in keys if key in owner and owner[key] != name), None)
            if first is not None:
                yield Fault("split-overlap-name", file, f"in {first} and in {name}")
            for key in keys:
                owner.setdefault(key, name)


def _shared_contents(inspections: dict[str, list[Inspection]]) -> Iterable[Fault]:
    files: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for name, results in inspections.items():
        for result in results:
            if result.digest:
                files[result.digest].append((name, result.file))
    for same in files.values():
        first = same[0]
        for name, file in same[1:]:
            if name != first[0] and file != first[1]:
                yield Fault("split-overlap-content", file, f"in {name}; equals {first[1]} in {first[0]}")


def _empty_classes(sets: dict[str, ImageSet]) -> Iterable[Fault]:
    totals: dict[str, int] = {}
    for image_set in sets.values():
        for key, number in zip(class_keys(image_set), count(image_set).classes.values(), strict=True):
            totals[key] = totals.get(key, 0) + number
    return [Fault("class-without-objects", key) for key, number in totals.items() if not number]


def _unlisted(sets: dict[str, ImageSet], faults: list[Fault]) -> list[Fault]:
    """Image files in the folders of the splits' images that no split uses and no fault names."""
    listed = {image_set.path(i) for image_set in sets.values() for i in range(len(image_set))}
    named = {Path(text.split(": ")[0]).stem for fault in faults for text in (fault.where, fault.detail) if text}
    result = []
    for folder in sorted({path.parent for path in listed if inside_tar(path) is None}):
        for file in sorted(folder.iterdir()):
            picture = file.suffix.lower() in SUFFIXES | UNSUPPORTED and not is_junk(file.name)
            if picture and file not in listed and file.stem not in named:
                root = next(iter(sets.values())).root
                result.append(Fault("image-unlisted", file.relative_to(root).as_posix()))
    return result


def _findings(faults: Faults, trained: set[str]) -> tuple[Finding, ...]:
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    findings = []
    for kind in sorted(FAULT_KINDS.values(), key=lambda kind: not kind.dropped):
        if same := by_kind.get(kind.name):
            shown = tuple(f"{f.where}" + (f" ({f.detail})" if f.detail else "") for f in same[:EXAMPLES])
            splits = tuple(dict.fromkeys(name for fault in same for name in sorted(faults[fault])))
            opened = sum(bool(faults[fault] & trained) for fault in same)
            findings.append(
                Finding(kind.name, kind.severity, kind.meaning, kind.policy, len(same), shown, splits, opened)
            )
    return tuple(findings)
