"""The tree of merges that makes the corpus of a run from the partials of its files.

The hash of its name says in which group of each level a file is. So a changed file changes one merge per level, and a new
one leaves the groups of the others as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2

from tasks.model.chunks import MERGE, Chunk, Pack
from tasks.model.files import MergeInput
from tasks.model.naming import merge_task_id, partial_blob
from tasks.model.outputs import Partial
from tasks.model.verdict import NOT_SUBMITTED, FileError, StoredResult, Verdict

# Merges have about this many partials at most. With more, a changed file costs more; with fewer, there are more levels,
# and each takes as long as a Batch task takes to start.
MAX_WIDTH = 100

KEY_DIGITS = 32

# Each chunk has three task runs, and a run has up to three levels.
MAX_CHUNKS_PER_LEVEL = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A file in the tree.

    Attributes:
        position: Hash of its name, in hexadecimal.
        key: Hash of everything that its partial depends on.
        partial: Where its partial is.
    """

    position: str
    key: str
    partial: Partial


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """A merge in the tree.

    Attributes:
        key: Hash of everything that its result depends on.
        children: The files and merges whose partials it merges.
        level: 0 if all of them are files, otherwise one more than the highest of them.
        is_last: Whether it makes the corpus.
    """

    key: str
    children: tuple[Leaf | Merge, ...]
    level: int
    is_last: bool

    @property
    def task_id(self) -> str:
        """Id of its Batch task: the same in every run with these partials."""
        return merge_task_id(self.key, is_last=self.is_last)

    @property
    def partial(self) -> Partial:
        """Where its result is kept, unless it is the last merge."""
        return Partial(blob=partial_blob("", self.task_id))


def position_of(name: str) -> str:
    """Return the hash of the name of a file, in hexadecimal. Files of one group are next to each other in its order."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def group_bits(file_count: int) -> tuple[int, ...]:
    """Return how many bits of the hash select the group of a file, for each level from the highest on.

    The levels have about the same width, at most `MAX_WIDTH`. There are none below the last merge for few files.
    """
    levels = 1
    while file_count > MAX_WIDTH**levels:
        levels += 1
    return tuple(round(log2(file_count) * level / levels) for level in range(1, levels)) if levels > 1 else ()


def merge_tree(leaves: Sequence[Leaf], workload_keys: Callable[[bool], str]) -> Merge:
    """Return the last merge of the tree of these files, of which there is at least one.

    Args:
        leaves: The files.
        workload_keys: Returns the hash of the workload of merges, of the last one if the argument is true.
    """

    def merge(children: Iterable[Leaf | Merge], *, is_last: bool) -> Merge:
        members = tuple(sorted(children, key=lambda child: child.key))
        parts = [workload_keys(is_last), *(child.key for child in members)]
        return Merge(
            key=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:KEY_DIGITS],
            children=members,
            level=max((child.level + 1 for child in members if isinstance(child, Merge)), default=0),
            is_last=is_last,
        )

    def group(members: Sequence[Leaf], bits: Sequence[int]) -> Leaf | Merge:
        # Without other files in its group, a file needs no merge.
        return members[0] if len(members) == 1 else merge(children(members, bits), is_last=False)

    def children(members: Sequence[Leaf], bits: Sequence[int]) -> Iterator[Leaf | Merge]:
        if not bits:
            yield from members
            return
        groups: dict[int, list[Leaf]] = {}
        for leaf in members:
            groups.setdefault(int(leaf.position, 16) >> (4 * len(leaf.position) - bits[0]), []).append(leaf)
        yield from (group(each, bits[1:]) for each in groups.values())

    return merge(children(leaves, group_bits(len(leaves))), is_last=True)


def missing_merges(last: Merge, is_known: Callable[[Merge], bool]) -> list[list[Merge]]:
    """Return the merges that have to be done, one list for each level, the lowest first."""
    levels: list[dict[str, Merge]] = [{} for _ in range(last.level + 1)]
    waiting = [last]
    while waiting:
        merge = waiting.pop()
        # Equal groups of files are merged once.
        if merge.key not in levels[merge.level] and not is_known(merge):
            levels[merge.level][merge.key] = merge
            waiting += [child for child in merge.children if isinstance(child, Merge)]
    return [list(level.values()) for level in levels if level]


def merge_chunks(
    merges: Sequence[Merge], merged: Mapping[str, Verdict], partial_name: str, first: int, total: int
) -> tuple[Chunk, ...]:
    """Return the chunks of the merges of one level, without those of which a part could not be merged.

    Args:
        merges: The merges.
        merged: Verdicts of the merges of lower levels, by key.
        partial_name: Name of the file with a partial.
        first: Position of the first of these merges among all of them.
        total: Number of all merges of the run.
    """
    packs = [
        Pack(task_id=merge.task_id, is_archive=False, files=(_input_of(merge, partial_name),))
        for merge in merges
        if failure_below(merge, merged) is None
    ]
    size = -(-len(packs) // MAX_CHUNKS_PER_LEVEL) or 1
    return tuple(
        Chunk(first=first + start, total=total, packs=tuple(packs[start : start + size]), kind=MERGE)
        for start in range(0, len(packs), size)
    )


def failure_below(merge: Merge, merged: Mapping[str, Verdict]) -> FileError | None:
    """Return the error of a merge in the tree below, if one has failed."""
    errors = (
        merged.get(child.key) or failure_below(child, merged) for child in merge.children if isinstance(child, Merge)
    )
    return next((error for error in errors if isinstance(error, FileError)), None)


def verdict_on(last: Merge, merged: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict on the last merge."""
    return merged.get(last.key) or failure_below(last, merged) or NOT_SUBMITTED


def merge_input(task_key: str, partials: tuple[Partial, ...] = (), partial_name: str = "") -> MergeInput:
    """Return the input of a merge with this key."""
    file = MergeInput(
        path="",
        name="corpus",
        output="",
        sha256="",
        size_bytes=0,
        content_key=task_key,
        partials=partials,
        partial_name=partial_name,
    )
    return replace(file, sha256=hashlib.sha256(file.script).hexdigest())


def _input_of(merge: Merge, partial_name: str) -> MergeInput:
    return merge_input(merge.key, tuple(child.partial for child in merge.children), partial_name)


@dataclass(frozen=True, kw_only=True)
class Merges:
    """What a run has to merge.

    Attributes:
        file_count: Number of files in the corpus.
        last: The last merge; None if no merge is needed.
        levels: The merges that have to be done, the lowest level first.
        known: The corpus, if it is known already.
    """

    file_count: int = 0
    last: Merge | None = None
    levels: tuple[tuple[Merge, ...], ...] = ()
    known: StoredResult | None = None

    @property
    def count(self) -> int:
        """Number of the merges that have to be done."""
        return sum(map(len, self.levels))
