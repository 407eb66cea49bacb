from datetime import datetime, timedelta, timezone

import pytest
from azure.batch import models
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from localbatch.testing import wait_until


@pytest.fixture
def container(blobs, name):
    client = blobs.create_container(name)
    yield client
    client.delete_container()


@pytest.fixture
def sas_factory(blobs, container):
    def sign(**permissions):
        expiry = datetime.now(timezone.utc) + timedelta(hours=1)
        token = generate_container_sas(
            blobs.account_name,
            container.container_name,
            account_key=blobs.credential.account_key,
            permission=ContainerSasPermissions(**permissions),
            expiry=expiry,
        )
        return f"{container.url}?{token}", token

    return sign


def make_output(pattern, url, path=None, condition="taskcompletion"):
    return models.OutputFile(
        file_pattern=pattern,
        destination=models.OutputFileDestination(
            container=models.OutputFileBlobContainerDestination(container_url=url, path=path)
        ),
        upload_options=models.OutputFileUploadConfiguration(upload_condition=condition),
    )


MAKE_FILES = '/bin/sh -c \'mkdir -p "wd/sub dir" && echo hello > "wd/sub dir/ö (1).txt" && echo out && echo err >&2\''


def test_task_files_are_listed_breadth_first(client, run):
    task = run(MAKE_FILES)
    list_files = client.list_task_files
    assert [file.name for file in list_files(task.job_id, "task")] == ["stderr.txt", "stdout.txt", "wd"]
    files = list(list_files(task.job_id, "task", recursive=True, max_results=2))
    assert [file.name for file in files] == [
        "stderr.txt",
        "stdout.txt",
        "wd",
        "wd/wd",
        "wd/wd/sub dir",
        "wd/wd/sub dir/ö (1).txt",
    ]
    assert [file.is_directory for file in files] == [False, False, True, True, True, False]
    assert (files[1].properties.content_length, files[1].properties.content_type) == (4, "text/plain")
    assert files[3].properties is None


def test_text_files_have_no_charset(ask, run):
    task = run("echo hello")
    target = f"/jobs/{task.job_id}/tasks/task/files/stdout.txt?api-version=2025-06-01"
    assert ask("HEAD", target)[2]["Content-Type"] == "text/plain"


def test_file_ranges_are_served(client, run, read):
    task = run(MAKE_FILES)
    path = "wd/wd/sub dir/ö (1).txt"
    assert read(task, path) == read(task, f"/{path}") == "hello\n"
    assert read(task, path, ocp_range="bytes=1-3") == "ell"
    assert read(task, path, ocp_range="bytes=4-") == "o\n"
    with pytest.raises(HttpResponseError) as caught:
        read(task, path, ocp_range="bytes=100-200")
    assert caught.value.status_code == 416
    caught.value.response.close()  # The SDK leaves the connection of a download that was refused.
    properties = client.get_task_file_properties(task.job_id, "task", path)
    assert (properties.content_length, properties.is_directory) == (6, False)
    assert client.get_task_file_properties(task.job_id, "task", "wd").is_directory
    node = task.node_info
    root = f"workitems/{task.job_id}/job-1/task"
    assert b"".join(client.download_node_file(node.pool_id, node.node_id, f"{root}/stdout.txt")) == b"out\n"
    assert client.get_node_file_properties(node.pool_id, node.node_id, f"{root}/stderr.txt").content_length == 4


def test_large_file_arrives_whole(run, read):
    assert len(read(run("head -c 3000000 /dev/zero"))) == 3_000_000


@pytest.mark.parametrize("path", ["none.txt", "../../../../../../../etc/passwd", "wd"])
def test_missing_task_file_is_not_found(run, read, path):
    task = run("true")
    with pytest.raises(ResourceNotFoundError) as caught:
        read(task, path)
    caught.value.response.close()  # The SDK leaves the connection of a download that was refused.


def test_active_task_has_no_files(client, job_factory, refuses):
    job_id = job_factory()
    client.create_task(job_id, models.BatchTaskCreateOptions(id="t", command_line="true"))
    refuses(409, "TaskFilesUnavailable", lambda: list(client.list_task_files(job_id, "t")))
    with pytest.raises(ResourceExistsError) as caught:
        next(iter(client.download_task_file(job_id, "t", "stdout.txt")))
    caught.value.response.close()  # The SDK leaves the connection of a download that was refused.


def test_resource_files_exist_when_task_starts(run, read, container, sas_factory):
    for blob_name in ("in/a b.txt", "in/deep/c.txt", "other.txt"):
        container.upload_blob(blob_name, blob_name)
    url, token = sas_factory(read=True, list=True)
    files = [
        models.ResourceFile(http_url=f"{container.url}/other.txt?{token}", file_path="made/here.sh", file_mode="0755"),
        models.ResourceFile(storage_container_url=url, blob_prefix="in/", file_path="all"),
        models.ResourceFile(storage_container_url=url, blob_prefix="other"),
    ]
    task = run('/bin/sh -c \'find . -type f | sort | xargs -d "\\n" stat -c "%n %a"\'', resource_files=files)
    assert read(task) == "./all/in/a b.txt 770\n./all/in/deep/c.txt 770\n./made/here.sh 755\n./other.txt 770\n"
    assert read(task, "wd/all/in/deep/c.txt") == "in/deep/c.txt"


def test_missing_resource_file_fails_the_task(run, container, sas_factory):
    _, token = sas_factory(read=True)
    file = models.ResourceFile(http_url=f"{container.url}/none?{token}", file_path="x")
    constraints = models.BatchTaskConstraints(max_task_retry_count=3)
    info = run("true", resource_files=[file], constraints=constraints).execution_info
    assert (info.result, info.failure_info.code, info.exit_code, info.retry_count) == (
        "failure",
        "BlobNotFound",
        None,
        0,
    )
    assert token not in str(info.as_dict())


def test_forbidden_resource_file_fails_the_task(run, container, sas_factory):
    container.upload_blob("blob", b"")
    url, token = sas_factory(write=True)
    for file in (
        models.ResourceFile(http_url=f"{container.url}/blob?{token}", file_path="x"),
        models.ResourceFile(storage_container_url=url),
    ):
        assert run("true", resource_files=[file]).execution_info.failure_info.code == "BlobAccessDenied"


def test_resource_file_stays_in_working_directory(run, container, sas_factory):
    container.upload_blob("blob", b"")
    _, token = sas_factory(read=True)
    file = models.ResourceFile(http_url=f"{container.url}/blob?{token}", file_path="../../escaped")
    assert run("true", resource_files=[file]).execution_info.failure_info.code == "ResourceFileCreateFailed"


def test_unreachable_storage_fails_the_task(run):
    file = models.ResourceFile(http_url="http://127.0.0.1:9/blob", file_path="x")
    info = run("true", resource_files=[file]).execution_info
    assert (info.failure_info.category.lower(), info.failure_info.code) == ("servererror", "BlobDownloadMiscError")


def test_outputs_need_only_write_permission(run, container, sas_factory, read):
    url, _ = sas_factory(create=True, write=True)
    outputs = [
        make_output("../std*.txt", url, "logs"),
        make_output("result.json", url, "named/r.json"),
        make_output("**/*.csv", url, "tables"),
        make_output("$AZ_BATCH_TASK_DIR/stdout.txt", url),
        make_output("empty", url),
    ]
    command = (
        "/bin/sh -c 'echo out; echo {} > result.json; mkdir -p a/b; echo 1 > a/b/t.csv; echo 2 > t.csv; : > empty'"
    )
    task = run(command, output_files=outputs)
    assert task.execution_info.result == "success"
    assert sorted(blob.name for blob in container.list_blobs()) == [
        "empty",
        "logs/stderr.txt",
        "logs/stdout.txt",
        "named/r.json",
        "stdout.txt",
        "tables/a/b/t.csv",
        "tables/t.csv",
    ]
    assert container.download_blob("logs/stdout.txt").readall() == b"out\n"
    assert "named/r.json" in read(task, "fileuploadout.txt")
    assert read(task, "fileuploaderr.txt") == ""


@pytest.mark.parametrize(("exit_code", "kept"), [(0, ["always", "good"]), (1, ["always", "bad"])])
def test_exit_code_selects_the_uploads(run, container, sas_factory, exit_code, kept):
    url, _ = sas_factory(write=True)
    conditions = {"good": "tasksuccess", "bad": "taskfailure", "always": "taskcompletion"}
    outputs = [make_output("../stdout.txt", url, path, condition) for path, condition in conditions.items()]
    run(f"/bin/sh -c 'exit {exit_code}'", output_files=outputs)
    assert [blob.name for blob in container.list_blobs()] == kept


def test_failed_upload_keeps_the_exit_code(run, container, sas_factory, read):
    url, _ = sas_factory(read=True)
    task = run("true", output_files=[make_output("../stdout.txt", url)])
    info = task.execution_info
    assert (info.result, info.exit_code, info.failure_info.code) == ("failure", 0, "FileUploadAccessDenied")
    assert "FileUploadAccessDenied" in read(task, "fileuploaderr.txt")
    url, _ = sas_factory(write=True)
    gone = url.replace(container.container_name, f"x{container.container_name}")
    info = run("true", output_files=[make_output("../stdout.txt", gone)]).execution_info
    assert (info.result, info.exit_code) == ("failure", 0)
    assert info.failure_info.code in {"FileUploadContainerNotFound", "FileUploadAccessDenied"}


def test_missing_container_has_its_code(run, blobs, container, sas_factory):
    url, _ = sas_factory(write=True)
    container.delete_container()
    info = run("true", output_files=[make_output("../stdout.txt", url)]).execution_info
    assert info.failure_info.code == "FileUploadContainerNotFound"
    wait_until(lambda: blobs.create_container(container.container_name))


def test_without_oauth_nodes_have_no_identity(container, run):
    container.upload_blob("a.txt", "hello")
    identity = models.BatchNodeIdentityReference(resource_id="/subscriptions/s/any")
    place = models.OutputFileBlobContainerDestination(container_url=container.url, identity_reference=identity)
    output = make_output("../stdout.txt", container.url)
    output.destination.container = place
    fetching = models.ResourceFile(http_url=f"{container.url}/a.txt", file_path="a.txt", identity_reference=identity)
    for options, code in (
        ({"resource_files": [fetching]}, "BlobAccessDenied"),
        ({"output_files": [output]}, "FileUploadAccessDenied"),
    ):
        failure = run("true", **options).execution_info.failure_info
        assert failure.code == code
        assert "Start localbatch with --oauth basic" in {pair.name: pair.value for pair in failure.details}["Message"]
