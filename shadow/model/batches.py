"""Many changes of one call and their results, as objects that are made when they are asked for.

A call for ten thousand documents would else keep a dozen objects alive for each of them until the secondary has
followed. Python's cyclic garbage collector counts them and goes through the whole heap of the process meanwhile, which
takes more time than all else of the call. Ids, keys and bytes are no work for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, overload

from shadow.model.operation import Applied, Change, Delete, Update
from shadow.model.version import Key

__all__ = ["AlikeChanges", "Made", "Result", "Results", "first_error", "keys_in"]

Result: TypeAlias = Applied | Exception | None
"""Of one change: what was applied, the error, or None where nothing matched or an earlier error ended the batch."""
_NO_NAMES: Final[Sequence[str]] = ()


class AlikeChanges(Sequence[Update | Delete]):
    """Updates or deletes that are equal but for their key, and the id that each may need: `born` of an update,
    `tombstone` of a delete. `model` is any of them; without `names` it has none."""

    __slots__ = ("keys", "model", "names")

    def __init__(self, model: Update | Delete, keys: Sequence[Key], names: Sequence[str] = _NO_NAMES) -> None:
        self.model = model
        self.keys = keys
        self.names = names

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Update | Delete: ...

    @overload
    def __getitem__(self, place: slice) -> AlikeChanges: ...

    def __getitem__(self, place: int | slice) -> Update | Delete | AlikeChanges:
        keys, names = self.keys[place], self.names[place] if self.names else ""
        if isinstance(place, slice):
            return AlikeChanges(self.model, keys, names)
        model = self.model
        if isinstance(model, Delete):
            return Delete(keys, model.filter, str(names))
        return Update(keys, model.filter, model.update, str(names), False, model.array_filters)


def keys_in(changes: Sequence[Change]) -> Sequence[Key]:
    """The key of each change."""
    return changes.keys if isinstance(changes, AlikeChanges) else [change.key for change in changes]


class Results(Sequence[Result]):
    """The results of `count` changes, None at first. What was applied is made each time it is asked for where it was
    given by `put_off`."""

    __slots__ = ("_errors", "_given", "_makers", "_modified")

    def __init__(self, count: int) -> None:
        self._given: dict[int, Result] = {}
        self._errors: dict[int, Exception] = {}
        self._makers: list[Callable[[int], Applied] | None] = [None] * count
        self._modified = 0

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, place: int) -> Result: ...

    @overload
    def __getitem__(self, place: slice) -> list[Result]: ...

    def __getitem__(self, place: int | slice) -> Result | list[Result]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        make = self._makers[place]  # with its IndexError
        place = place if place >= 0 else place + len(self)
        return make(place) if make is not None else self._given.get(place)

    def __setitem__(self, place: int, result: Result) -> None:
        self._given[place] = result
        if isinstance(result, Exception):
            self._errors[place] = result
        else:
            self._errors.pop(place, None)

    def put_off(self, place: int, make: Callable[[int], Applied], *, modified: bool) -> None:
        """What was applied at `place`, which `make` makes whenever it is asked for; that must not fail. `modified`:
        whether the images will differ. Once for each place."""
        self._makers[place] = make
        self._modified += modified

    @property
    def first_error(self) -> Exception | None:
        """That of the lowest place."""
        return self._errors[min(self._errors)] if self._errors else None

    @property
    def late(self) -> int:
        """How many were put off."""
        return len(self._makers) - self._makers.count(None)

    @property
    def late_modified(self) -> int:
        """How many of those have modified their document."""
        return self._modified

    @property
    def given(self) -> list[Applied]:
        """What was applied besides those, and counts."""
        return [each for each in self._given.values() if isinstance(each, Applied) and each.counted]


def first_error(results: Sequence[Result]) -> Exception | None:
    """The error of the lowest place among them."""
    if isinstance(results, Results):
        return results.first_error
    return next((each for each in results if isinstance(each, Exception)), None)


class Made:
    """What a call has applied, of which it counts how much that was, batch by batch."""

    def __init__(self) -> None:
        self._batches: list[Sequence[Result]] = []
        self._count = 0

    def add(self, results: Sequence[Result]) -> None:
        """The results of the next batch, none of them an error."""
        self._batches.append(results)
        if isinstance(results, Results):
            self._count += results.late + len(results.given)
        else:
            self._count += sum(isinstance(each, Applied) and each.counted for each in results)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Applied]:
        for batch in self._batches:
            for each in batch:
                if isinstance(each, Applied) and each.counted:
                    yield each

    def modified(self, is_modified: Callable[[Applied], bool]) -> int:
        """How many have modified their document. `is_modified` is asked where that is not known yet."""
        count = 0
        for batch in self._batches:
            if isinstance(batch, Results):
                count += batch.late_modified + sum(map(is_modified, batch.given))
            else:
                count += sum(isinstance(each, Applied) and each.counted and is_modified(each) for each in batch)
        return count
