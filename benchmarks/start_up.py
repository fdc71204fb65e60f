"""CPU time until a command answers: help, lists, errors of names, and the first detections of ``poise predict``.

python benchmarks/start_up.py --model runs/first --image photo.jpg [--repeat 3] [--json FILE]

Each command runs in a process of its own; the time is user and system time of that process, so that other work on the
machine counts little. The steps of a prediction are timed in one further process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile

import record

COMMANDS = {
    "poise --help": ["--help"],
    "poise train --help": ["train", "atss_r18_fpn", "--help"],
    "a wrong option of train": ["train", "atss_r18_fpn", "--epoch", "3"],
    "a wrong model name": ["train", "atss_r18_fpm", "--data", "x"],
    "poise models": ["models"],
}
STEPS = """
import json, time
times, last = {}, time.process_time()
def done(step):
    global last
    now = time.process_time()
    times[step], last = now - last, now
import torch; done("import torch")
import torchvision; done("import torchvision")
import timm; done("import timm")
import poise.api; done("import poise.api")
detector = poise.Detector(MODEL); done("build the model and load its weights")
(result,) = detector.predict(IMAGE); done("the first prediction")
detector.predict(IMAGE); done("a further prediction")
result.save(OUT); done("draw and save")
print(json.dumps(times))
"""


def cpu_seconds(words: list[str]) -> float:
    """User and system time of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print and write medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--repeat", type=int, default=3)
    record.add_json(parser)
    options = parser.parse_args()
    rows: list[record.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        commands = {**COMMANDS, "poise predict": ["predict", options.model, options.image, "--out", f"{folder}/out"]}
        for case in record.track(commands):
            times = [cpu_seconds([sys.executable, "-m", "poise", *commands[case]]) for _ in range(options.repeat)]
            rows.append({"case": case, "cpu_s": statistics.median(times)})
        code = f"MODEL, IMAGE, OUT = {options.model!r}, {options.image!r}, {folder!r}\n{STEPS}"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        steps = json.loads(run.stdout.splitlines()[-1])
    rows += [{"case": step, "cpu_s": seconds} for step, seconds in steps.items()]
    print("\n".join(f"{row['cpu_s']:6.2f} s  {row['case']}" for row in rows))
    record.write(options.json, "start_up", vars(options), rows)


if __name__ == "__main__":
    main()
