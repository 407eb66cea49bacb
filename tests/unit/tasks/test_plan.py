"""Finding the inputs, and planning which files to count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_reports import result_of

from tasks.model.corpus import MAX_CHUNKS_PER_LEVEL, group_bits
from tasks.model.files import InputFile
from tasks.model.inputs import FoundFile
from tasks.model.plan import Plan
from tasks.model.pool import PoolOptions
from tasks.model.verdict import Category, FileError, StoredResult
from tasks.steps.plan import MAX_CHUNKS, _chunks, chunk_size, create_plan, group_into_packs, split_failed_packs
from tasks.workload.base import Workload
from tasks.workload.results_store import FolderStore
from tasks.workload.word_counts import word_count_workload

# Staging, submitting, collecting, and waiting once, on each level.
MERGE_TASK_RUNS = (len(group_bits(1_000_000)) + 1) * (3 * MAX_CHUNKS_PER_LEVEL + 1)


def make_result(sha256: str) -> StoredResult:
    return result_of(sha256, [("one", 1)])


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def write(folder, **contents):
    for name, content in contents.items():
        (folder / f"{name}.txt").write_text(content)
    return [found(folder / f"{name}.txt") for name in contents]


def found(path):
    return FoundFile(path=str(path), name=path.name)


def test_equal_contents_share_batch_task(tmp_path, store):
    plan = create_plan(
        write(tmp_path, a="same", b="same", c="other"), word_count_workload(3, False), store, refresh=False
    )
    assert len(plan.files) == 3
    assert plan.batch_task_count == 2


def test_suffix_of_compression_is_part_of_content(tmp_path, store):
    names = ["a.gz", "b.gz", "a.bin", "a.GZ", "a.gz.txt", "a.xz"]
    for name in names:
        (tmp_path / name).write_text("same")

    plan = create_plan([found(tmp_path / name) for name in names], word_count_workload(3, False), store)

    assert [key.content_key for key in plan.files[:2]] == [plan.files[0].content_key] * 2
    assert len({file.content_key for file in plan.files}) == 3
    assert plan.batch_task_count == 3


def test_own_workload_ignores_suffix_of_compression(tmp_path, store):
    workload = Workload(name="own", command="cp input out", outputs=("out",))
    for name in ("a.gz", "a.txt"):
        (tmp_path / name).write_text("same")

    plan = create_plan([found(tmp_path / name) for name in ("a.gz", "a.txt")], workload, store)

    assert plan.batch_task_count == 1
    assert workload.node_input("a.gz") == "input"


def test_renamed_known_content_is_not_counted(tmp_path, store):
    workload = word_count_workload(3, False)
    [path] = write(tmp_path, a="text")
    [file] = create_plan([path], workload, store).files
    store.put(file.content_key, make_result(file.sha256))
    renamed = tmp_path / "renamed.txt"
    (tmp_path / "a.txt").rename(renamed)

    plan = create_plan([found(renamed)], workload, store)

    assert plan.chunks == ()
    assert plan.unchanged == {file.content_key: make_result(file.sha256)}


def test_refresh_counts_known_content(tmp_path, store):
    workload = word_count_workload(3, False)
    [path] = write(tmp_path, a="text")
    [file] = create_plan([path], workload, store).files
    store.put(file.content_key, make_result(file.sha256))
    assert create_plan([path], workload, store, refresh=True).batch_task_count == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"content_key": "other"}',
        b"\xff",
        '{"content_key": "KEY", "outputs": {"input_OUTPUT.json": "{}"}, "provenance": PROVENANCE}',
        '{"content_key": "KEY", "outputs": {}, "provenance": PROVENANCE}',
        '{"content_key": "KEY", "outputs": [], "provenance": PROVENANCE}',
        '{"content_key": "KEY", "outputs": {"input_OUTPUT.json": {"base64": "?"}}, "provenance": PROVENANCE}',
    ],
)
def test_damaged_stored_result_is_counted_again(tmp_path, store, damage):
    """Field report 30: a lost or damaged result is a cache miss."""
    workload = word_count_workload(3, False)
    [path] = write(tmp_path, a="text")
    [file] = create_plan([path], workload, store).files
    store.put(file.content_key, make_result(file.sha256))
    if isinstance(damage, str):
        provenance = '{"node_id": "n", "task_id": "t", "job_id": "j", "pool_id": "p"}'
        damage = damage.replace("KEY", file.content_key).replace("PROVENANCE", provenance).encode()
    (tmp_path / "store" / f"{file.content_key}.json").write_bytes(damage)
    assert create_plan([path], workload, store).batch_task_count == 1


@pytest.mark.parametrize("other", [(4, False), (3, True)])
def test_options_change_content_key(tmp_path, store, other):
    paths = write(tmp_path, a="text")
    [first] = create_plan(paths, word_count_workload(3, False), store).files
    [second] = create_plan(paths, word_count_workload(*other), store).files
    assert first.content_key != second.content_key


@given(st.integers(1, 1_000_000))
def test_run_stays_under_300_task_runs(file_count):
    """Field report 29: a Prefect server on SQLite needs about 50 ms per task run."""
    chunks = -(-file_count // chunk_size(file_count))
    assert chunks <= MAX_CHUNKS
    # Waiting, eight steps once, and the merges.
    assert 3 * chunks + 1 + 8 + MERGE_TASK_RUNS < 300


@pytest.mark.parametrize("file_count", [10_000, 100_000])
def test_bad_blob_per_pack_keeps_run_small(file_count):
    """Each pack has a blob that its node cannot download, so all of its files are processed again, one by one.

    With more files, chunks are larger, but not more.
    """
    file = InputFile(path="", name="a", output="a", sha256="", size_bytes=1, content_key="0" * 64, etag="1")
    chunks = _chunks(group_into_packs([file] * file_count, None))
    error = FileError(category=Category.RESOURCE_FILE, message="", code="BlobNotFound")

    again = split_failed_packs(Plan(files=(), unchanged={}, chunks=chunks), {file.content_key: error})

    assert sum(len(chunk.packs) for chunk in again) == sum(len(chunk.files) for chunk in chunks) == file_count
    # Staging, submitting and collecting each chunk, waiting twice, eight steps once, and the merges.
    assert 3 * len((*chunks, *again)) + 2 + 8 + MERGE_TASK_RUNS < 300


def test_chunk_size_is_one_up_to_twenty_files():
    assert [chunk_size(count) for count in (1, 20, 21, 200, 5000, 8000, 8001)] == [1, 1, 2, 10, 100, 100, 101]


@pytest.mark.parametrize(
    ("vm_size", "slots"),
    [
        ("standard_d2s_v3", 2),
        ("standard_d2as_v5", 2),
        ("Standard_D16ds_v5", 16),
        ("STANDARD_E4-2s_v5", 2),
        ("Standard_NC24ads_A100_v4", 24),
        ("Standard_D128ads_v7", 128),
        ("Standard_M832is_16_v3", 256),
        # Before version 3, the name of a size does not contain its number of cores.
        ("Standard_D3_v2", 1),
        ("standard_a1", 1),
        ("a size of tomorrow", 1),
    ],
)
def test_slots_default_to_cores_of_vm_size(vm_size, slots):
    assert PoolOptions(vm_size=vm_size).slots == slots
    assert PoolOptions(vm_size=vm_size, slots_per_node=7).slots == 7
