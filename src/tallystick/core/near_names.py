"""Names that look like one that names nothing, for who mistyped it."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction


class NearNames:
    """Names by the runs of three characters in them. Asking costs what shares a run with the question."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._sizes: list[int] = []
        self._having: defaultdict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(self._names):
            runs = _runs(name)
            self._sizes.append(len(runs))
            for run in runs:
                self._having[run].append(place)

    def nearest(self, text: str, count: int) -> list[str]:
        """At most `count` names, the most alike first: those that share more than a quarter of their runs."""
        runs = _runs(text)
        shared: Counter[int] = Counter()
        for run in runs:
            shared.update(self._having.get(run, ()))
        alike = (
            (Fraction(2 * both, len(runs) + self._sizes[place]), place)
            for place, both in shared.items()
            if 8 * both > len(runs) + self._sizes[place]
        )
        best = sorted(alike, key=lambda each: (-each[0], self._names[each[1]]))
        return [self._names[place] for _, place in best[:count]]


def _runs(text: str) -> set[str]:
    padded = f"  {text.lower()} "
    return {padded[place : place + 3] for place in range(len(padded) - 2)}
