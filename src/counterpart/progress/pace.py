"""How far something is, how fast it goes, and how long the rest will take."""

import time
from collections import deque
from dataclasses import dataclass, field

WINDOW = 600.0  # seconds that a rate is taken over
MOST_SAMPLES = 2000  # of a rate


@dataclass
class Pace:
    """The pace of a stage.

    Attributes:
        total: how much there is to do; None where nobody knows.
        unit: what is counted, such as images.
        completed: how much of it is done.
        began: when it began, by ``time.monotonic``.
    """

    total: int | None
    unit: str = "images"
    completed: int = 0
    began: float = field(default_factory=time.monotonic)
    _worked: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))

    def advance(self, count: int) -> None:
        """So much was done just now."""
        now = time.monotonic()
        if not self._samples:
            self._samples.append((self.began, 0))
        self.completed += count
        self._worked += count
        self._samples.append((now, self._worked))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    def skip(self, count: int) -> None:
        """So much need not be done: it counts as done, and not for the rate."""
        self.completed += count

    def measure_anew(self) -> None:
        """What comes next takes another time: forget the rate of what came before."""
        self._samples.clear()
        self._samples.append((time.monotonic(), self._worked))

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """What is done in a second, over the last ten minutes at most; None before anything is."""
        if len(self._samples) < 2:
            return None
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return (after - before) / (end - start) if end > start else None

    @property
    def remaining(self) -> float | None:
        """The seconds that the rest will take at this rate; None where nobody knows."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.completed) / self.rate

    def __str__(self) -> str:
        """Such as: 12,400 of 60,000 images, 350.0 images/s, 0:01:10 so far, 0:12:00 left."""
        said = [] if self.total is None else [f"{self.completed:,} of {self.total:,} {self.unit}"]
        said += [] if self.rate is None else [f"{self.rate:,.1f} {self.unit}/s"]
        said += [f"{clock(self.seconds)} so far"]
        said += [] if self.remaining is None else [f"{clock(self.remaining)} left"]
        return ", ".join(said)


def clock(seconds: float) -> str:
    """A length of time as hours, minutes and seconds: 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
