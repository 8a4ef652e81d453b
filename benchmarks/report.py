"""The table (ratios first), the targets, and the JSON file. Pure: from samples and facts to text and objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.samples import METRICS, Metric, Samples

OURS = "eg"
OTHERS = ("EG", "KG")
FLOORS = ("tornado", "kernel")
HEADINGS = {
    "eg": "eg",
    "EG": "EG 3.3.0",
    "KG": "KG 3.0.1",
    "tornado": "bare tornado",
    "kernel": "bare kernel",
}


HOW_TO_READ = """\
Medians of the rounds, their range in parentheses; one contestant after the other within each round. A ratio above 1
is in eg's favour. Trust ratios, not absolute values.
"""


class Target:
    """A figure to reach: ``value`` of the samples is compared with ``limit`` of them."""

    def __init__(
        self,
        words: str,
        value: Callable[[Samples], float | None],
        limit: Callable[[Samples], float | None],
        *,
        more: bool = False,
    ) -> None:
        self.words = words
        self._value, self._limit, self._more = value, limit, more

    def judge(self, samples: Samples) -> dict[str, Any]:
        value, limit = self._value(samples), self._limit(samples)
        met = None if value is None or limit is None else (value >= limit if self._more else value < limit)
        return {"target": self.words, "value": value, "limit": limit, "met": met}


def _ours(key: str, who: str = OURS, plus: float = 0.0) -> Callable[[Samples], float | None]:
    def read(samples: Samples) -> float | None:
        value = samples.median(key, who)
        return None if value is None else value + plus

    return read


def _times(key: str, factor: float) -> Callable[[Samples], float | None]:
    def read(samples: Samples) -> float | None:
        value = samples.median(key, "EG")
        return None if value is None else factor * value

    return read


def _share(part: float) -> Callable[[Samples], float | None]:
    def read(samples: Samples) -> float | None:
        value = samples.median("journal_bare", OURS)
        return None if value is None else part * value

    return read


def _const(value: float) -> Callable[[Samples], float | None]:
    return lambda _: value


TARGETS = (
    Target("small messages, v1: 15 times EG's", _ours("small_v1"), _times("small_v1", 15), more=True),
    Target("small messages, default protocol: 15 times EG's", _ours("small_json"), _times("small_json", 15), more=True),
    Target("small messages, v1: 60,000 a second (an aim)", _ours("small_v1"), _const(60_000), more=True),
    Target("small messages, default: 60,000 a second (an aim)", _ours("small_json"), _const(60_000), more=True),
    Target("echo, v1, p50 below 1 ms", _ours("echo_v1_p50"), _const(1.0)),
    Target("echo, default protocol, p50 below 1 ms", _ours("echo_json_p50"), _const(1.0)),
    Target(
        "first result of ipykernel: bare + 50 ms",
        _ours("first_ipykernel"),
        _ours("first_ipykernel", "kernel", 50.0),
    ),
    Target("DELETE of a stub below 15 ms", _ours("delete_stub"), _const(15.0)),
    Target(
        "GET /api/kernels p99 while many start: bare tornado + 30 ms",
        _ours("starts_p99"),
        _ours("starts_p99_bare", OURS, 30.0),
    ),
    Target("no callback of more than 50 ms thread CPU", _ours("callback"), _const(50.0)),
    Target("a client comes back: first replayed message within 50 ms", _ours("reconnect"), _const(50.0)),
    Target("a killed gateway serves a thousand kernels again within 2 s", _ours("restart"), _const(2000.0)),
    Target("journal and replay cost at most 15 % of small messages", _ours("journal"), _share(0.85), more=True),
    Target("a thousand idle kernels: all there", _ours("idle_many"), _ours("idle_many_wanted"), more=True),
    Target(
        "that many idle kernels: under 1 descriptor each in the gateway", _ours("idle_many_fds_gateway"), _const(1.0)
    ),
    Target("that many idle kernels: under 20 KiB each in the gateway", _ours("idle_many_memory_gateway"), _const(20.0)),
)


def number(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cell(samples: Samples, metric: Metric, contestant: str) -> str:
    found = samples.summary(metric.key, contestant)
    if found is None:
        return "–"
    text = number(found["median"])
    if len(found["samples"]) > 1:
        text += f" ({number(found['min'])}–{number(found['max'])})"
    return text


def _ratio(samples: Samples, metric: Metric, other: str) -> str:
    ratio = samples.ratio(metric, OURS, other)
    return "–" if ratio is None else f"{number(ratio)}×"


def rows(samples: Samples, names: dict[str, Any]) -> list[list[str]]:
    """The heading first."""
    contestants = (OURS, *OTHERS, *FLOORS)
    table = [["", "unit", *(f"better than {name}" for name in OTHERS), *(HEADINGS[name] for name in contestants)]]
    for metric in METRICS:
        if not any(samples.summary(metric.key, name) for name in contestants):
            continue
        ratios = [_ratio(samples, metric, name) for name in OTHERS]
        if metric.key.endswith(("_client", "_bytes", "_bare", "_rise")) or metric.key in ("idle_few", "idle_many"):
            ratios = ["" for _ in OTHERS]
        cells = [_cell(samples, metric, name) for name in contestants]
        table.append([metric.label.format(**names), metric.unit, *ratios, *cells])
    return table


def markdown(table: list[list[str]]) -> str:
    heading, *body = table
    lines = [heading, ["---", "---", *("---:" for _ in heading[2:])], *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def render(samples: Samples, facts: dict[str, Any]) -> str:
    """The whole page."""
    circumstances = (
        f"{facts['when']}, {facts['cpus']} CPUs, load average {facts['load_before']} before and {facts['load_after']} "
        f"after, {facts['seconds']:.0f} s, {facts['rounds']} round(s), {facts['kind']}, seed {facts['seed']}."
    )
    parts = [
        f"# Benchmark\n\n{circumstances}",
        HOW_TO_READ,
        markdown(rows(samples, facts)),
        "\n## Targets\n",
        *(f"- {_verdict(target.judge(samples))}" for target in TARGETS),
        "\n## Contestants\n",
        *(f"- {HEADINGS[name]}: {_words(about)}" for name, about in facts["contestants"].items()),
    ]
    for title, key in (("Notes", "notes"), ("Not measured", "failures")):
        if facts[key]:
            parts += [f"\n## {title}\n", *(f"- {line}" for line in facts[key])]
    return "\n".join(parts) + "\n"


def _verdict(judged: dict[str, Any]) -> str:
    word = {True: "reached", False: "MISSED", None: "not measured"}[judged["met"]]
    return f"{word}: {judged['target']} ({number(judged['value'])}; limit {number(judged['limit'])})"


def _words(about: dict[str, Any]) -> str:
    installed = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items() if version)
    return f"{installed}. Differs from its defaults: {about['differs']}." if installed else f"{about['differs']}."


def as_json(samples: Samples, facts: dict[str, Any]) -> dict[str, Any]:
    """Ratios first."""
    contestants = (OURS, *OTHERS, *FLOORS)

    def row(metric: Metric) -> dict[str, Any]:
        return {
            "key": metric.key,
            "label": metric.label.format(**facts),
            "unit": metric.unit,
            "more_is_better": metric.more,
            "ratios": {name: samples.ratio(metric, OURS, name) for name in OTHERS},
            "values": {name: samples.summary(metric.key, name) for name in contestants},
        }

    measured: Iterable[Metric] = (m for m in METRICS if any(samples.summary(m.key, c) for c in contestants))
    return {
        "rows": [row(metric) for metric in measured],
        "targets": [target.judge(samples) for target in TARGETS],
        **facts,
    }
