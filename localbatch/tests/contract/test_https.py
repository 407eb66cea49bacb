"""Https and bearer tokens: a certificate of a private authority, and tokens as Microsoft Entra ID issues them."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import time
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
from authority_support import BATCH, STORAGE, TENANT, mint
from azure.batch import BatchClient, models
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from server_support import LOCALBATCH

from localbatch import LocalAzure, LocalBatch
from localbatch.__main__ import main
from localbatch.testing import MACHINE, wait_until


class Identity:
    """A credential that has the token that it was given."""

    def __init__(self, token):
        self.token = token
        self.scopes = []

    def get_token(self, *scopes, **_options):
        self.scopes += scopes
        return AccessToken(self.token, int(time.time()) + 3600)


@pytest.fixture
def batch(authority, tmp_path):
    with LocalBatch(
        state_dir=tmp_path / "batch", pace="instant", certificate=authority[1], oauth=True, tenant=TENANT
    ) as batch:
        yield batch


@pytest.fixture
def open_client(batch, authority):
    opened = []

    def open_with(credential):
        opened.append(BatchClient(batch.endpoint, credential, connection_verify=str(authority[0]), retry_total=0))
        return opened[-1]

    yield open_with
    for client in opened:
        client.close()


def test_token_opens_the_account(open_client):
    identity = Identity(mint())
    client = open_client(identity)
    client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
    client.begin_delete_job("j", polling_interval=0).wait()
    assert list(client.list_jobs()) == []
    assert {scope.replace("net//", "net/") for scope in identity.scopes} == {f"{BATCH}.default"}


def test_key_works_over_https(batch, open_client):
    assert list(open_client(AzureNamedKeyCredential(batch.account, batch.key)).list_pools()) == []


GROUP = "/subscriptions/s/resourceGroups/g/providers"
NETWORK = models.NetworkConfiguration(subnet_id=f"{GROUP}/Microsoft.Network/virtualNetworks/v/subnets/s")
OWN_IMAGE = models.VirtualMachineConfiguration(
    image_reference=models.BatchVmImageReference(
        virtual_machine_image_id=f"{GROUP}/Microsoft.Compute/galleries/g/images/i"
    ),
    node_agent_sku_id="batch.node.ubuntu 24.04",
)


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"network_configuration": NETWORK}, "Network"), ({"virtual_machine_configuration": OWN_IMAGE}, "Compute")],
)
def test_linked_resources_need_a_token(batch, open_client, options, kind):
    options = MACHINE | options
    pool = models.BatchPoolCreateOptions(id="p", **options)
    auto = models.BatchAutoPoolSpecification(pool_lifetime_option="job", pool=models.BatchPoolSpecification(**options))
    job = models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(auto_pool_specification=auto))
    with_key, with_token = open_client(AzureNamedKeyCredential(batch.account, batch.key)), open_client(Identity(mint()))
    for create, body in (("create_pool", pool), ("create_job", job)):
        with pytest.raises(HttpResponseError) as caught:
            getattr(with_key, create)(body)
        assert (caught.value.status_code, caught.value.error.code) == (403, "AuthenticationFailed")
        assert caught.value.error.details[0].message == (
            "The specified type of authentication SharedKey is not allowed when external resources of type "
            f"{kind} are linked."
        )
        getattr(with_token, create)(body)


# Another test moves the clock of the service by hours.
FAR_FUTURE = 4_000_000_000


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://storage.azure.com/"}, "audience"),
        ({"nbf": FAR_FUTURE}, "not valid yet"),
        ({"exp": int(time.time()) - 1}, "expired"),
        ({"nbf": None}, "no valid claims nbf and exp"),
        ({"tid": "00000000-0000-0000-0000-000000000000"}, "tenant"),
    ],
    ids=["audience", "early", "late", "endless", "tenant"],
)
def test_invalid_token_is_refused_with_the_reason(open_client, claims, reason):
    with pytest.raises(ClientAuthenticationError) as caught:
        list(open_client(Identity(mint(**claims))).list_pools())
    assert (caught.value.status_code, caught.value.error.code) == (401, "AuthenticationFailed")
    (detail,) = caught.value.error.details
    assert detail.code == "AuthenticationErrorDetail"
    assert reason in detail.message


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "..", f"{mint()}.more", "a.W10.c"],
    ids=["no dots", "no JSON", "empty", "four parts", "no claims"],
)
def test_what_is_no_token_is_refused(open_client, token):
    with pytest.raises(ClientAuthenticationError):
        list(open_client(Identity(token)).list_pools())


def test_token_expires_by_the_service_clock(batch, open_client):
    client = open_client(Identity(mint()))
    assert list(client.list_pools()) == []
    batch.advance(timedelta(hours=2))
    with pytest.raises(ClientAuthenticationError):
        list(client.list_pools())


def test_tokens_need_the_oauth_option(authority, refuses):
    with (
        LocalBatch(certificate=authority[1]) as batch,
        BatchClient(batch.endpoint, Identity(mint()), connection_verify=str(authority[0])) as client,
    ):
        refuses(400, "InvalidAuthenticationInfo", lambda: list(client.list_pools()))


def test_client_without_the_authority_refuses_the_server(batch, open_client):
    with (
        BatchClient(batch.endpoint, Identity(mint()), retry_total=0) as client,
        pytest.raises(ServiceRequestError, match="certificate"),
    ):
        list(client.list_pools())
    assert list(open_client(Identity(mint())).list_pools()) == []


@pytest.mark.parametrize("storage_faults", [False, True], ids=["", "through the passage"])
def test_local_azure_without_keys(authority, tmp_path, storage_faults):
    verify = {"connection_verify": str(authority[0])}
    options = {"certificate": authority[1], "oauth": True, "storage_faults": storage_faults}
    with (
        LocalAzure(state_dir=tmp_path / "azure", pace="instant", **options) as azure,
        BatchClient(azure.endpoint, Identity(mint()), **verify) as client,
        BlobServiceClient(azure.storage_endpoint, Identity(mint(aud=STORAGE)), **verify) as blobs,
    ):
        now = datetime.now(timezone.utc)
        with blobs.create_container(f"c-{uuid.uuid4().hex}") as container:
            container.upload_blob("in.txt", "hello")
            delegation = blobs.get_user_delegation_key(now - timedelta(minutes=1), now + timedelta(hours=1))
            token = generate_container_sas(
                azure.storage_account,
                container.container_name,
                user_delegation_key=delegation,
                permission=ContainerSasPermissions(read=True, list=True, create=True, write=True),
                expiry=now + timedelta(hours=1),
            )
            place = models.OutputFileBlobContainerDestination(container_url=f"{container.url}?{token}", path="out.txt")
            output = models.OutputFile(
                file_pattern="../stdout.txt",
                destination=models.OutputFileDestination(container=place),
                upload_options=models.OutputFileUploadConfiguration(upload_condition="taskcompletion"),
            )
            task = models.BatchTaskCreateOptions(
                id="t",
                command_line="cat in.txt",
                resource_files=[models.ResourceFile(storage_container_url=f"{container.url}?{token}")],
                output_files=[output],
            )
            client.create_pool(models.BatchPoolCreateOptions(id="p", **MACHINE, target_dedicated_nodes=1))
            client.create_job(models.BatchJobCreateOptions(id="j", pool_info=models.BatchPoolInfo(pool_id="p")))
            client.create_task("j", task)
            wait_until(lambda: client.get_task("j", "t").state == "completed")
            assert client.get_task("j", "t").execution_info.failure_info is None
            assert container.download_blob("out.txt").readall() == b"hello"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--cert=c.pem", "use --cert and --key together"), ("--oauth=basic", "needs --cert and --key")],
)
def test_incomplete_https_options_are_one_sentence(capsys, option, sentence):
    with pytest.raises(SystemExit) as stop:
        main(["exec", option, "--", "true"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_invalid_certificate_is_one_sentence():
    options = ["--cert=/none.pem", "--key=/none.key"]
    command = [*LOCALBATCH, "exec", *options, "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/none.pem and /none.key are not a certificate and its key" in done.stderr
    assert done.stderr.count("\n") == 1


def test_tokens_without_https_are_no_choice():
    with pytest.raises(ValueError, match="certificate"):
        LocalBatch(oauth=True)


def test_open_connection_does_not_delay_stop(authority, caplog):
    with LocalBatch(certificate=authority[1]) as batch:
        address = urlsplit(batch.endpoint)
        context = ssl.create_default_context(cafile=authority[0])
        connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=20)
        connection.request("GET", "/pools")
        assert connection.getresponse().read()
    assert "timeout graceful shutdown exceeded" not in caplog.text
    assert is_closed(connection.sock)
    connection.close()


def is_closed(connection):
    """Wait until the other side of a connection has closed it."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("storage_faults", [False, True], ids=["", "through the passage"])
def test_stop_drops_unfinished_handshakes(authority, tmp_path, storage_faults):
    options = {"certificate": authority[1], "storage_faults": storage_faults}
    with contextlib.ExitStack() as stack:
        with LocalAzure(state_dir=tmp_path / "azure", pace="instant", **options) as azure:
            address = urlsplit(azure.storage_endpoint if storage_faults else azure.endpoint)
            place = (address.hostname, address.port)
            silent = stack.enter_context(socket.create_connection(place, timeout=20))
            # Connections are accepted in their order.
            context = ssl.create_default_context(cafile=authority[0])
            with context.wrap_socket(socket.create_connection(place, timeout=20), server_hostname="127.0.0.1"):
                pass
        assert is_closed(silent)
