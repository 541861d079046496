"""Tables of what a bench measured, as text."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_gemma4.measure.speed.bench import ROWS
from mlx_gemma4.measure.speed.bench_drafts import PLAIN
from mlx_gemma4.measure.speed.figures import Figure, Figures, Table, number
from mlx_gemma4.measure.speed.peers import OURS, Comparison


def tables(figures: Figures) -> Iterator[Table]:
    """Those of which something was measured."""
    if figures.named("model"):
        yield model_table(figures)
    if figures.named("prefill"):
        yield text_table(figures)
    if figures.named("first token"):
        yield first_tokens_table(figures)
    if figures.named("forward"):
        yield rows_table(figures)
    if figures.named("drafts"):
        yield drafts_table(figures)
    if figures.named("live"):
        yield live_table(figures)


def model_table(figures: Figures) -> Table:
    """Sizes, the time to load, and the most memory that any prompt of text took."""
    rows = [(figure.of, gigabytes(figure.median)) for figure in figures.named("model")]
    rows += [("load", seconds(figure.median)) for figure in figures.named("load")]
    for end, name in ((", peak", "peak memory"), (", planned", "planned")):
        most = [figure.median for figure in figures.named("memory") if figure.of.endswith(end)]
        rows += [(name, gigabytes(max(most)))] if most else []
    return Table("Model", ("", "value"), rows)


def text_table(figures: Figures) -> Table:
    """A row for each number of positions."""
    copy = figures.find("bandwidth", "copy")
    header = ("positions", "prefill tok/s", "first token", "decode tok/s", "read GB/s", "of copy", "peak GB", "runs")
    rows = []
    for figure in figures.named("prefill"):
        if figure.unit != "tokens/s":
            continue
        decode, read = figures.find("decode", figure.of), figures.find("decode", f"{figure.of}, read")
        first, peak = figures.find("prefill", f"{figure.of}, first token"), figures.find("memory", f"{figure.of}, peak")
        assert decode is not None and read is not None and first is not None and peak is not None
        share = "–" if copy is None else f"{read.median / copy.median:.0%}"
        rows.append(
            (
                f"{figure.counts['positions']:,}",
                number(figure.median),
                seconds(first.median),
                number(decode.median),
                number(read.median / 1e9),
                share,
                number(peak.median / 1e9),
                str(len(figure.values)),
            )
        )
    copied = "" if copy is None else f"; a copy runs at {number(copy.median / 1e9)} GB/s"
    return Table(f"Text{copied}", header, rows)


def first_tokens_table(figures: Figures) -> Table:
    """From a question, a picture's file or sound to the first token."""
    rows = [
        (figure.of, str(figure.counts["positions"]), seconds(figure.median), spread(figure))
        for figure in figures.named("first token")
    ]
    return Table("First token", ("for", "positions", "median", "range"), rows)


def rows_table(figures: Figures) -> Table:
    """What several rows in one forward cost."""
    found = [figure for count in ROWS if (figure := figures.find("forward", f"{count} rows")) is not None]
    times = [seconds(figure.median) for figure in found]
    ratios = [f"{figure.median / found[0].median:.2f}" for figure in found]
    header = ("rows", *(str(figure.counts["rows"]) for figure in found))
    return Table(
        "Forwards over several rows, as a draft is checked", header, [("time", *times), ("of one row", *ratios)]
    )


def drafts_table(figures: Figures) -> Table:
    """Decoding with each kind of draft, beside none."""
    rows = []
    for figure in figures.named("drafts"):
        task, _, name = figure.of.rpartition(", ")
        plain = figures.find("drafts", f"{task}, {PLAIN}")
        assert plain is not None
        drafted, accepted = figure.counts["drafted"], figure.counts["accepted"]
        right = f"{accepted / drafted:.0%}" if drafted else "–"
        rows.append((task, name, number(figure.median), f"{figure.median / plain.median:.2f}", str(drafted), right))
    return Table("Drafts", ("decoding", "drafts", "tok/s", "ratio", "drafted", "right"), rows)


def live_table(figures: Figures) -> Table:
    """How long after speech its text comes, and what that takes."""
    rows = [(figure.of, seconds(figure.median), seconds(max(figure.values))) for figure in figures.named("live")]
    return Table("Live transcription", ("", "median", "worst"), rows)


def comparison_table(comparison: Comparison) -> Table:
    """Our times beside the peer's, and how many times as fast we are; on a CPU by CPU time, too."""
    versions = comparison.versions.get(comparison.peer, {})
    peer = f"{comparison.peer} {versions.get(comparison.peer, '')}".strip()
    rows = []
    for name in comparison.names:
        times = [_cell(comparison.median(program, name, "wall")) for program in (OURS, comparison.peer)]
        ratios = [_ratio(comparison.ratio(name, key)) for key in ("wall", "cpu")]
        rows.append((f"{name}{_positions(comparison, name)}", *times, *ratios))
    rows += [_memory(comparison, name) for name in comparison.names if comparison.ratio(name, "peak_bytes")]
    turns = max((len(values) for rows in comparison.rows.values() for values in rows.values()), default=0)
    header = ("", "mlx_gemma4", peer, "times as fast", "by CPU time")
    return Table(f"Against {peer}, medians of {turns} turns", header, rows)


def _memory(comparison: Comparison, name: str) -> tuple[str, ...]:
    peaks = [comparison.median(program, name, "peak_bytes") for program in (OURS, comparison.peer)]
    cells = ["–" if peak is None else gigabytes(peak) for peak in peaks]
    return f"memory, {name}", *cells, _ratio(comparison.ratio(name, "peak_bytes")), ""


def _positions(comparison: Comparison, name: str) -> str:
    """Of a picture or sound: programs may give it different numbers of positions."""
    counts = [comparison.median(program, name, "positions") for program in (OURS, comparison.peer)]
    shown = list(dict.fromkeys(f"{count:.0f}" for count in counts if count))
    return f" ({' against '.join(shown)} positions)" if shown else ""


def _cell(value: float | None) -> str:
    return "–" if value is None else seconds(value)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def gigabytes(nbytes: float) -> str:
    return f"{number(nbytes / 1e9)} GB"


def seconds(value: float) -> str:
    """Milliseconds below a second, seconds above."""
    return f"{number(1000 * value)} ms" if value < 1 else f"{number(value)} s"


def spread(figure: Figure) -> str:
    """The shortest and the longest."""
    return f"{seconds(min(figure.values))} – {seconds(max(figure.values))}"
