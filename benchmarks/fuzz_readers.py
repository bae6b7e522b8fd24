"""Damaged and hostile files for every reader: how many are read, how many refused in one line, and all else.

    python benchmarks/fuzz_readers.py --inputs 15000
    python benchmarks/fuzz_readers.py --engine atheris --inputs 100000 --only JSON,YAML

Inputs are small sound files (``fuzz_corpus.py``), changed at random from a seed, so that each can be made again: bits
flipped, bytes cut, repeated and exchanged with other files, numbers and brackets replaced; in packed formats also what
lies within, under checksums that are right again. Atheris, where it is installed (``pip install atheris``), chooses
them by the lines that they reach instead.

Allowed is a value, or a UserError or ValueError of one line. Everything else is a finding: another exception, a
process that dies, more than five seconds of the processor, more memory than the limit beyond what the process has.
Each reader has a process of its own; the file that ended one is kept.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

if "atheris" in sys.argv:  # which counts the lines of what is imported under it
    import atheris

    with atheris.instrument_imports(include=["counterpart", "yaml", "PIL"]):
        from fuzz_corpus import Inner, Reader, readers
else:
    from fuzz_corpus import Inner, Reader, readers

from counterpart.errors import UserError
from counterpart.records import Record

BAD = ("tracebacks", "crashes", "hangs", "memory")
KINDS = ("inputs", "read", "refused", *BAD)
SECONDS = 5  # of the processor
WAITING = 30  # by the clock: a reader that waits uses no processor
PIXELS = 10_000_000  # of an image: at the limit that users have, one takes seconds of a machine that is busy
MEMORY = 2**31  # bytes beyond what the process has when it starts
LONGEST = 20_000  # characters of a message; the names of all recipes take half of that
NUMBERS = (
    b"0", b"-1", b"1e999", b"-1e400", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b'"x"', b"2147483648",
    b"9223372036854775808", b"18446744073709551616", b"1e-320", b"0.1", b"7", b"255", b"65536", b"1" + b"0" * 400, b"",
)  # fmt: skip
BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff" * 8,
)
BRACKETS = b"[]{}(),:\"'"


def main() -> None:
    """Run every reader in a process of its own, and keep the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=15_000, help="for each reader; slow ones get a share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--keep", action="store_true", help="append the counts to results/fuzz_readers.jsonl")
    parser.add_argument("--only", help="names of readers, with commas between them")
    parser.add_argument(
        "--findings", type=Path, default=Path("findings"), help="the folder of inputs that fail"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, reader in readers().items():
        if not given.only or name in given.only.split(","):
            row = campaign(name, reader, given.inputs, Way(given.seed, given.engine, given.findings))
            print(json.dumps({"reader": name, "inputs": row.n, **row.details}), flush=True)
            rows.append(row)
            if given.keep:
                from timing import keep

                keep("fuzz_readers.jsonl", [row])
    raise SystemExit(1 if any(row.value for row in rows) else 0)


class Way(NamedTuple):
    """How inputs are made, and where those go that fail."""

    seed: int
    engine: str
    findings: Path


def campaign(name: str, reader: Reader, inputs: int, way: Way) -> Record:
    """Fuzz a reader, in as many processes as it takes, and count what came of it."""
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    started = time.perf_counter()
    wanted = max(1, round(inputs * reader.share))
    while counts["inputs"] < wanted:
        told, more_faults = run_child(name, reader, range(counts["inputs"], wanted), way)
        counts.update(told)
        faults |= more_faults
        if not told.get("inputs"):
            raise SystemExit(f"{name}: no input was read: {faults}")
    details = {"unit": "inputs", "seed": way.seed, "engine": way.engine, "pixels": PIXELS}
    details |= {kind: counts[kind] for kind in KINDS[1:]} | {"faults": faults}
    bad = sum(counts[kind] for kind in BAD)
    seconds = round(time.perf_counter() - started, 1)
    return Record("metric", f"fuzz/{name}", bad, counts["inputs"], details=details, seconds=seconds)


def run_child(name: str, reader: Reader, numbers: range, way: Way) -> tuple[dict[str, int], dict[str, str]]:
    """The counts and faults of a process that reads these inputs; if it dies, the input that ended it is kept."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(
                BaseException
            ):  # what is left of this process must not go on as its parent
                read_many(name, reader, numbers, way, place)
                code = 0
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counts, faults = read_counts(place / "counts"), read_faults(place / "faults.jsonl")
        if code == 0 or "inputs" not in counts:
            return counts, faults | ({"start": said(place)} if code else {})
        kind = "hangs" if code in (-signal.SIGALRM, -signal.SIGPROF) else "crashes"
        counts["inputs"] += 1
        counts[kind] += 1
        content = (place / "work" / reader.file).read_bytes()
        return counts, faults | {
            keep_input(way.findings, name, content): f"{kind}: ended with {code}: {said(place)}"
        }


def said(folder: Path) -> str:
    """Where in the project a process was when it ended, as far as it could say."""
    lines = (
        (folder / "errors").read_text(errors="replace").splitlines() if (folder / "errors").exists() else []
    )
    ours = [line.strip() for line in lines if "counterpart" in line]
    return " ".join(ours[:1] or lines[-1:])[:300]


def read_counts(path: Path) -> dict[str, int]:
    """The counts that a process wrote, dead or alive."""
    if not path.exists():
        return {}
    return dict(zip(KINDS, np.fromfile(path, np.int64).tolist(), strict=True))


def read_faults(path: Path) -> dict[str, str]:
    """The faults that a process found: the name of each input that was kept, and what it led to."""
    if not path.exists():
        return {}
    return {name: words for line in path.read_text().splitlines() for name, words in json.loads(line).items()}


def keep_input(findings: Path, name: str, content: bytes) -> str:
    """Write an input that failed into the folder of findings; its name."""
    findings.mkdir(parents=True, exist_ok=True)
    kept = findings / f"{re.sub('[^A-Za-z0-9]+', '-', name)}-{hashlib.sha256(content).hexdigest()[:8]}"
    kept.write_bytes(content)
    return kept.name


class Trial:
    """Reads one input after another, and counts."""

    def __init__(self, name: str, reader: Reader, folder: Path, findings: Path) -> None:
        self.name, self.reader, self.folder, self.findings = name, reader, folder, findings
        with (folder / "counts").open("wb") as file:
            file.truncate(8 * len(KINDS))
        self.counts = np.memmap(folder / "counts", np.int64, "r+")  # outlives the process
        self.seen: set[str] = set()
        self.path = folder / "work" / reader.file
        self.path.parent.mkdir(parents=True)

    def read_sound(self) -> None:
        """Read a sound file: if it were refused, all that follows would say nothing."""
        self.path.write_bytes(self.reader.seeds[0])
        self.reader.read(self.path)

    def read(self, content: bytes) -> None:
        """Give an input to the reader, under the limits."""
        self.path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, whatever it does
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        try:
            self.reader.read(self.path)
            outcome = "read"
        except (UserError, ValueError) as error:
            outcome = self._judge(error, content)
        except Exception as error:  # whatever else comes is what this looks for
            outcome = self._fault("memory" if out_of_memory(error) else "tracebacks", error, content)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.counts[[KINDS.index("inputs"), KINDS.index(outcome)]] += 1

    def _judge(self, error: Exception, content: bytes) -> str:
        """Whether a refusal is one short line, made within the memory that there is."""
        words = str(error)
        if out_of_memory(error):
            return self._fault("memory", error, content)
        if "\n" in words or len(words) > LONGEST or not words:
            return self._fault("tracebacks", error, content)
        return "refused"

    def _fault(self, kind: str, error: Exception, content: bytes) -> str:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "counterpart" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        words = f"{kind}: {type(error).__name__} at {place}"
        if words not in self.seen:
            self.seen.add(words)
            kept = keep_input(self.findings, self.name, content)
            with (self.folder / "faults.jsonl").open("a") as file:
                file.write(
                    json.dumps({kept: f"{words}: {str(error).replace(f'{self.path.parent}/', '')[:100]}"})
                    + "\n"
                )
        return kind


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, says that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error)[:2000]:
            return True
        error = error.__cause__ or error.__context__
    return False


def read_many(name: str, reader: Reader, numbers: range, way: Way, folder: Path) -> None:
    """Read the inputs of these numbers, in this process, which ends when it takes too long."""
    errors = (folder / "errors").open("w")
    os.dup2(errors.fileno(), sys.stderr.fileno())
    warnings.simplefilter("ignore")
    os.environ["COUNTERPART_MOST_PIXELS"] = str(PIXELS)
    for number in (signal.SIGALRM, signal.SIGPROF):
        faulthandler.register(number, file=errors, chain=True)
    faulthandler.enable(errors)
    trial = Trial(name, reader, folder, way.findings)
    trial.read_sound()
    limit_memory()
    if way.engine == "atheris":
        read_by_coverage(trial, len(numbers), folder)
        return
    for number in numbers:
        trial.read(make_input(reader, random.Random(f"{way.seed} {name} {number}")))


def limit_memory() -> None:
    """Let the process have so much memory more, and no more; then an allocation fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def read_by_coverage(trial: Trial, count: int, folder: Path) -> None:
    """Let atheris choose the inputs."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(trial.reader.seeds):
        (corpus / str(number)).write_bytes(content)

    def one(content: bytes) -> None:
        trial.read(content)

    flags = [f"-runs={count}", "-max_len=20000", "-rss_limit_mb=8192", f"-timeout={2 * SECONDS}", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], one)
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()


def make_input(reader: Reader, draws: random.Random) -> bytes:
    """A sound file that was changed, or what lies within one."""
    if reader.inner and draws.random() < 0.6:
        inner: Inner = draws.choice(reader.inner)
        changed = change(inner.content, [within.content for within in reader.inner], draws)
        return inner.pack(changed)
    return change(draws.choice(reader.seeds), reader.seeds, draws)


def change(content: bytes, others: Sequence[bytes], draws: random.Random) -> bytes:
    """Change some bytes, in one to five steps of different kinds."""
    for _ in range(draws.choice((1, 1, 1, 2, 3, 5))):
        content = draws.choice(CHANGES)(content, others, draws)
    return content


def _flip(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 8)) if changed else 0):
        changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return bytes(changed)


def _cut(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    first, last = sorted(draws.randrange(len(content) + 1) for _ in range(2))
    return content[:first] if draws.random() < 0.5 else content[:first] + content[last:]


def _splice(content: bytes, others: Sequence[bytes], draws: random.Random) -> bytes:
    other = draws.choice(others)
    return content[: draws.randrange(len(content) + 1)] + other[draws.randrange(len(other) + 1) :]


def _repeat(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    first = draws.randrange(len(content) + 1)
    last = first + draws.choice((1, 2, 8, 64))
    return content[:last] + content[first:last] * draws.choice((1, 2, 20, 300)) + content[last:]


def _write(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    place, written = draws.randrange(len(content) + 1), draws.choice(BYTES)
    return content[:place] + written + content[place + draws.choice((0, len(written))) :]


def _number(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    """Replace a number, or a word, of a text."""
    there = list(re.finditer(rb"-?\d[\d.e+-]*|\w+", content))
    if not there:
        return content
    match = draws.choice(there)
    return content[: match.start()] + draws.choice(NUMBERS) + content[match.end() :]


def _bracket(content: bytes, _: Sequence[bytes], draws: random.Random) -> bytes:
    """Replace a bracket or a mark, or put some in."""
    there = [place for place, byte in enumerate(content) if byte in BRACKETS]
    mark = bytes([draws.choice(BRACKETS)]) * draws.choice((1, 1, 1, 150, 5000))
    if not there:
        return content + mark
    place = draws.choice(there)
    return content[:place] + mark + content[place + draws.randrange(2) :]


CHANGES = (_flip, _flip, _cut, _splice, _repeat, _write, _number, _number, _bracket)


if __name__ == "__main__":
    main()
