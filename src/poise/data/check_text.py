"""The report of ``poise check`` as text."""

from __future__ import annotations

from poise.data.check import CheckReport, Finding
from poise.data.statistics import SplitStatistics
from poise.suggestions import plural

MAX_CLASSES = 100  # lines of the table of classes


def render(report: CheckReport) -> str:
    """The report as lines for people; :meth:`CheckReport.to_dict` is for programs."""
    lines = [f"{report.path}: {report.format or 'unknown format'}"]
    for name, statistics in report.splits.items():
        lines += ["", f"split {name}", *_split(statistics)]
    lines += ["", *_classes(report.splits)]
    for finding in report.findings:
        lines += ["", *_finding(finding)]
    return "\n".join([*lines, "", _verdict(report)])


def _split(s: SplitStatistics) -> list[str]:
    return [
        f"  {plural(s.images, 'image')}, {s.images_without_objects} of them without objects",
        f"  {plural(s.objects, 'object')}, {plural(s.crowd, 'crowd region')}, {s.ignored} to ignore",
        f"  {s.mean_objects_per_image:.1f} objects an image, at most {s.most_objects_per_image}",
        f"  {s.small} small (area below 32 x 32), {s.medium} medium, {s.large} large (from 96 x 96)",
        *(f"  {line}" for line in s.read_as),
    ]


def _classes(splits: dict[str, SplitStatistics]) -> list[str]:
    names = list(dict.fromkeys(name for statistics in splits.values() for name in statistics.classes))
    width = max([len("class"), *(len(name) for name in names[:MAX_CLASSES])])
    lines = [f"{'class':<{width}}" + "".join(f"  {split:>9}" for split in splits)]
    for name in names[:MAX_CLASSES]:
        lines.append(f"{name:<{width}}" + "".join(f"  {s.classes.get(name, 0):>9}" for s in splits.values()))
    if len(names) > MAX_CLASSES:
        lines.append(f"... and {len(names) - MAX_CLASSES} more classes")
    return lines


def _finding(finding: Finding) -> list[str]:
    splits = f" (in {', '.join(finding.splits)})" if finding.splits else ""
    head = f"{finding.count} x {finding.kind} [{finding.severity}]: {finding.meaning}; {finding.policy}{splits}"
    rest = finding.count - len(finding.examples)
    return [head, *(f"  {example}" for example in finding.examples), *([f"  ... and {rest} more"] if rest else [])]


def _verdict(report: CheckReport) -> str:
    opened = f"splits {', '.join(report.training_splits)}" if report.training_splits else "its splits"
    if report.dropped:
        text = (
            f"{report.dropped} records would be dropped. Training on {opened} stops with this list at its start; "
            "with --on-bad-data skip it leaves out exactly these."
        )
    else:
        text = f"Nothing would be dropped in training on {opened}."
    if report.dropped_elsewhere:
        text += (
            f" {report.dropped_elsewhere} records of other splits would be dropped, which training does not open: "
            "evaluating on those stops with this list."
        )
    return text
