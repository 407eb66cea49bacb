"""The tree of merges."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tasks.model import corpus
from tasks.model.corpus import (
    Leaf,
    Merge,
    failure_below,
    group_bits,
    merge_chunks,
    merge_tree,
    missing_merges,
    position_of,
    verdict_on,
)
from tasks.model.files import MergeInput
from tasks.model.outputs import Outputs, Partial
from tasks.model.verdict import Category, FileError, Provenance, StoredResult

RESULT = StoredResult(outputs=Outputs.of({}), provenance=Provenance(node_id="n", task_id="t", job_id="j", pool_id="p"))
ERROR = FileError(category=Category.PROGRAM, message="It is damaged")


def leaves_of(contents):
    """Return the leaves of files with these contents, by name."""
    return [
        Leaf(position=position_of(name), key=content, partial=Partial(blob=f"files/{content}"))
        for name, content in contents.items()
    ]


def files(count):
    return {f"{number}.txt": f"content {number}" for number in range(count)}


def tree(contents, workload="w"):
    return merge_tree(leaves_of(contents), lambda is_last: f"{workload} {is_last}")


def merges_of(last):
    return [merge for level in missing_merges(last, lambda _: False) for merge in level]


def contents_of(merge, by_key=None):
    """Count the contents that a merge puts together."""
    found = Counter()
    for child in merge.children:
        found.update(contents_of(child) if isinstance(child, Merge) else [child.key])
    return found


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 500, 1000, 9_999, 10_000, 10_001, 20_000])
def test_each_file_is_merged_once(count):
    last = tree(files(count))
    assert contents_of(last) == Counter(files(count).values())
    assert last.is_last
    assert not any(merge.is_last for merge in merges_of(last) if merge is not last)


@pytest.mark.parametrize(("count", "levels"), [(1, 1), (100, 1), (101, 2), (10_000, 2), (10_001, 3), (1_000_000, 3)])
def test_number_of_levels_grows_slowly(count, levels):
    assert len(group_bits(count)) + 1 == levels


@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_merges_are_not_wide(count):
    assert max(len(merge.children) for merge in merges_of(tree(files(count)))) <= 2 * corpus.MAX_WIDTH


@pytest.mark.parametrize("count", [50, 1000, 10_000])
def test_changed_file_changes_one_merge_per_level(count):
    known = {merge.key for merge in merges_of(tree(files(count)))}
    levels = missing_merges(tree(files(count) | {"7.txt": "changed"}), lambda merge: merge.key in known)
    assert [len(level) for level in levels] == [1] * (len(group_bits(count)) + 1)


def test_order_of_files_changes_nothing():
    contents = list(files(500).items())
    shuffled = dict(random.Random(1).sample(contents, len(contents)))
    assert tree(shuffled).key == tree(dict(contents)).key


def test_other_workload_shares_no_merge():
    one, other = ({merge.key for merge in merges_of(tree(files(500), workload))} for workload in "ab")
    assert not one & other


def test_other_last_merge_shares_groups():
    leaves = leaves_of(files(500))
    one, other = (merge_tree(leaves, lambda is_last, n=n: f"{n if is_last else 0}") for n in (3, 5))
    known = {merge.key for merge in merges_of(one)}
    assert missing_merges(other, lambda merge: merge.key in known) == [[other]]


def test_random_trees_contain_all_files(monkeypatch):
    """Files with the same content, groups of one file, and equal groups."""
    for seed in range(200):
        chance = random.Random(seed)
        monkeypatch.setattr(corpus, "MAX_WIDTH", chance.choice([2, 3, 10]))
        contents = {
            f"{number}": str(chance.randrange(chance.choice([1, 3, 100]))) for number in range(chance.randrange(1, 60))
        }
        last = tree(contents)
        assert contents_of(last) == Counter(contents.values())
        done = set()
        for level in missing_merges(last, lambda _: False):
            for merge in level:
                assert {child.key for child in merge.children if isinstance(child, Merge)} <= done
            done |= {merge.key for merge in level}
        assert last.key in done


def test_levels_are_few_chunks():
    levels = missing_merges(tree(files(10_000)), lambda _: False)
    chunks = [merge_chunks(level, {}, "partial", 1, 200) for level in levels]
    assert [len(each) for each in chunks] == [corpus.MAX_CHUNKS_PER_LEVEL, 1]
    packs = [pack for chunk in chunks[0] for pack in chunk.packs]
    assert {pack.task_id for pack in packs} == {merge.task_id for merge in levels[0]}


def test_failed_merge_fails_those_above():
    last = tree(files(500))
    below, [above] = missing_merges(last, lambda _: False)
    merged = {merge.key: RESULT for merge in below} | {below[0].key: ERROR}
    assert failure_below(above, merged) == ERROR
    assert merge_chunks([above], merged, "partial", 1, 1) == ()
    assert verdict_on(last, merged) == ERROR


def test_verdict_of_last_merge_counts():
    last = tree(files(3))
    assert verdict_on(last, {last.key: RESULT}) == RESULT
    assert verdict_on(last, {}).category is Category.CANCELLED


def test_partial_keeps_its_name_on_node():
    merge = MergeInput(
        path="",
        name="",
        output="",
        sha256="",
        size_bytes=0,
        content_key="k",
        partial_name="words.gz",
        partials=(
            Partial(blob="files/one"),
            Partial(blob="files/pack", member="ab"),
            Partial(blob="files/pack", member="cd"),
            Partial(blob="files/one"),
            Partial(blob="files/pack", member="cd"),
        ),
    )
    assert merge.blobs == {"files/one": "partials/0/words.gz", "files/pack": "archives/1.tar"}
    assert merge.script.decode().splitlines() == [
        "mkdir -p partials || exit 1",
        "tar -xf archives/1.tar -C partials ab/words.gz cd/words.gz || exit 1",
        "mkdir -p partials/3 && ln -f partials/0/words.gz partials/3/words.gz || exit 1",
        "mkdir -p partials/4 && ln -f partials/cd/words.gz partials/4/words.gz || exit 1",
    ]
