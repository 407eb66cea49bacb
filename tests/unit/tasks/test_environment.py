"""Proxies, certificate variables and missing home folders."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import certifi
import httpx
import pytest
import requests

from tasks.environment import bypass_proxies_on_loopback, check_certificate_variables, ensure_home_folder
from tasks.errors import ConfigurationError

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")
OWN_URLS = ("http://127.0.0.1:4200/api", "https://127.0.0.1:10100", "http://localhost:1", "http://[::1]:1")
OTHER_URL = "http://mybatch.westeurope.batch.azure.com"

# No user has this id.
UNKNOWN_UID = 12345


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Run the test without these variables, and restore all afterwards."""
    with mock.patch.dict(os.environ):
        for name in (*PROXIES, *CERTIFICATES, "no_proxy", "NO_PROXY", "SSLKEYLOGFILE"):
            os.environ.pop(name, None)
        yield


def uses_proxy(url):
    """Check that both HTTP clients agree, and return whether they send a request through a proxy."""
    by_requests = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) is not None
    with httpx.Client(verify=False) as client:
        direct = client._transport
        assert by_requests == (client._transport_for_url(httpx.URL(url)) is not direct)
    return by_requests


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "127.0.0.1:9", "socks5://me:secret@127.0.0.1:9"])
@pytest.mark.parametrize("excluded", [{}, {"NO_PROXY": "example.com"}, {"no_proxy": "a.b , c", "NO_PROXY": "d"}])
def test_own_servers_are_reached_directly(name, proxy, excluded):
    os.environ.update({name: proxy, **excluded})
    assert bypass_proxies_on_loopback() == []
    assert not any(uses_proxy(url) for url in OWN_URLS)
    assert name.lower() == "https_proxy" or uses_proxy(OTHER_URL)
    for hosts in excluded.values():
        assert set(map(str.strip, hosts.split(","))) <= set(os.environ["no_proxy"].split(","))
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"]


def test_star_still_excludes_all_hosts():
    os.environ.update(HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="*")
    bypass_proxies_on_loopback()
    assert not uses_proxy(OTHER_URL)


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1080/", "http://[", "nothing://", "host:port:9"])
def test_unusable_proxy_is_removed(proxy):
    """Desktops set `socks://`, and then Prefect's client does not start."""
    os.environ["ALL_PROXY"] = proxy
    assert bypass_proxies_on_loopback() == ["ALL_PROXY"]
    assert not uses_proxy(OTHER_URL)


def test_nothing_changes_without_proxy():
    before = dict(os.environ)
    assert bypass_proxies_on_loopback() == []
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", [*CERTIFICATES, "SSLKEYLOGFILE"])
def test_missing_certificate_names_its_variable(name):
    os.environ[name] = "/missing/certificate.pem"
    with pytest.raises(ConfigurationError, match=f"The variable {name} is `/missing/certificate.pem`"):
        check_certificate_variables()


@pytest.mark.parametrize("name", [name for name in CERTIFICATES if name != "SSL_CERT_DIR"])
def test_file_without_certificate_names_its_variable(name):
    os.environ[name] = __file__
    with pytest.raises(ConfigurationError, match=name):
        check_certificate_variables()


def test_valid_certificates_are_accepted(tmp_path):
    os.environ.update(dict.fromkeys(CERTIFICATES, certifi.where()))
    os.environ.update(SSL_CERT_DIR=f"/missing:{tmp_path}", CURL_CA_BUNDLE=str(tmp_path))
    check_certificate_variables()


def in_child(function, uid=None):
    """Call a function in a child process, perhaps as another user, and return what it returns as text."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            if uid is not None:
                os.setgid(uid)
                os.setuid(uid)
            os.write(write, str(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as pipe:
        return pipe.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_unknown_user_gets_state_folder_as_home(tmp_path):
    os.environ.pop("HOME", None)

    def home():
        with pytest.raises(RuntimeError):
            Path.home()
        ensure_home_folder(tmp_path)
        return Path.home(), os.environ["PREFECT_HOME"]

    assert in_child(home, UNKNOWN_UID) == str((tmp_path, str(tmp_path)))


@pytest.mark.parametrize("home", ["/missing/home", "relative", __file__])
def test_missing_home_becomes_state_folder(tmp_path, home):
    os.environ["HOME"] = home
    ensure_home_folder(tmp_path)
    assert Path.home() == tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_read_only_home_stays_readable(tmp_path):
    os.environ["HOME"] = "/"

    def home():
        ensure_home_folder(tmp_path)
        return Path.home(), os.environ["PREFECT_HOME"]

    assert in_child(home, UNKNOWN_UID) == str((Path("/"), str(tmp_path)))


def test_usable_home_changes_nothing(tmp_path):
    os.environ["HOME"] = str(tmp_path)
    before = dict(os.environ)
    ensure_home_folder(tmp_path / "state")
    assert dict(os.environ) == before
