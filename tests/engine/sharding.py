"""A pytest plugin for scripts/gpu_check.

`--shard=I/N`: the I-th share of the tests, the long ones first. `--progress=FILE`: one line of JSON that lists them, then
one for each as it ends, so that a process that is killed has told what it found.
"""

import json

# Roughly what tests cost on a GPU, in runs of a small model, by a word of their names.
COST = {"sanitizer": 100, "hundred_times": 4, "networks": 3}


def cost(name: str) -> int:
    return next((n for word, n in COST.items() if word in name), 1)


def deal(names: list[str], shards: int) -> list[list[int]]:
    """Places of the tests of each shard: the dearest first, each to the shard that has least to do."""
    load, dealt = [0] * shards, [[] for _ in range(shards)]
    for i in sorted(range(len(names)), key=lambda i: -cost(names[i])):
        shard = load.index(min(load))
        load[shard] += cost(names[i])
        dealt[shard].append(i)
    return dealt


def pytest_addoption(parser):
    parser.addoption("--shard", default="0/1")
    parser.addoption("--progress", metavar="FILE")


def pytest_collection_modifyitems(config, items):
    mine, shards = map(int, config.getoption("--shard").split("/"))
    if shards > 1:
        items[:] = [items[i] for i in deal([item.nodeid for item in items], shards)[mine]]


class Progress:
    def __init__(self, path) -> None:
        self.file = open(path, "w", buffering=1)  # noqa: SIM115 - until the process ends

    def say(self, what) -> None:
        self.file.write(json.dumps(what) + "\n")

    def pytest_collection_finish(self, session) -> None:
        self.say([item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or not report.passed:
            self.say({"name": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3),
                      "text": report.longreprtext if report.failed else ""})


def pytest_configure(config):
    if config.getoption("--progress"):
        config.pluginmanager.register(Progress(config.getoption("--progress")))
