"""Shared by the comparisons: reading the sections task, metrics, versions of what was used."""
import json
import os
import platform
import subprocess


def read_jsonl(path, limit=None):
    rows = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            rows.append(json.loads(line))
            if limit and len(rows) == limit:
                break
    return rows


def write_lines(path, lines):
    """Lines with their ends; the file appears when it is whole."""
    with open(path + ".new", "w", encoding="utf-8") as out:
        out.writelines(lines)
    os.replace(path + ".new", path)


def scores(gold, predicted):
    """Accuracy and macro F1 in percent; macro over the labels seen in gold or predictions."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": round(100 * accuracy_score(gold, predicted), 2),
        "macro_f1": round(100 * f1_score(gold, predicted, average="macro", zero_division=0), 2),
    }


def machine():
    cpu = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=False).stdout.strip()
    return {"cpu": cpu, "cores": cores, "system": platform.platform(), "python": platform.python_version()}


def versions(*names):
    from importlib.metadata import version

    return {name: version(name) for name in names}
