"""The price of nodes, the estimate of a run's cost, and the limit of the cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.errors import ConfigurationError
from tasks.model.pool import PoolOptions
from tasks.report.model import Price, Usage
from tasks.report.price import describe_cost, estimate_usd, limited_minutes
from tasks.report.usage import node_price

ONE_USD = Price(usd_per_node_hour=1.0, source="test", is_paid=True)
UNKNOWN = Price(usd_per_node_hour=None, source="standard_nc6", is_paid=True)


def make_usage(node_seconds, spot_node_seconds):
    return Usage(
        batch_tasks=1,
        retries=0,
        requeues=0,
        running=(),
        task_seconds=1,
        waited_seconds=1,
        idle_seconds=0,
        nodes=1,
        preemptions=0,
        node_seconds=node_seconds,
        spot_node_seconds=spot_node_seconds,
    )


@pytest.fixture
def local_endpoint(monkeypatch):
    """Configure an account on this machine where no server listens."""
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("TOPN_STORAGE_ENDPOINT", "http://127.0.0.1:1/account")
    for variable in ("TOPN_BATCH_ACCOUNT", "TOPN_STORAGE_ACCOUNT", "TOPN_BATCH_KEY", "TOPN_STORAGE_KEY"):
        monkeypatch.setenv(variable, "a2V5")


@pytest.mark.parametrize(
    ("vm_size", "given", "price"),
    [
        ("Standard_D2s_v3", None, 0.096),
        ("standard_nc6", None, None),
        ("standard_nc6", 0.9, 0.9),
        ("standard_nc6", 0.0, 0.0),
        (PoolOptions().vm_size, None, 0.086),
    ],
)
def test_price_is_given_or_list_price(local_endpoint, vm_size, given, price):
    found = node_price(vm_size, given)
    assert found.usd_per_node_hour == price
    assert not found.is_paid


def test_cloud_account_is_paid_for(local_endpoint, monkeypatch):
    monkeypatch.setenv("TOPN_BATCH_ENDPOINT", "https://mine.westeurope.batch.azure.com")
    assert node_price("standard_d2s_v3", None).is_paid


@pytest.mark.parametrize(
    ("seconds", "price", "estimate"),
    [
        ((3600, 0), ONE_USD, (1.0, 1.0)),
        ((3600, 7200), ONE_USD, (1.2, 3.0)),
        ((0, 3600), ONE_USD, (0.1, 1.0)),
        ((3600, None), ONE_USD, (1.0, 1.0)),
        ((None, None), ONE_USD, None),
        ((3600, 0), UNKNOWN, None),
    ],
)
def test_estimate_of_spot_nodes_is_range(seconds, price, estimate):
    assert estimate_usd(make_usage(*seconds), price) == (None if estimate is None else pytest.approx(estimate))


@pytest.mark.parametrize(
    ("seconds", "is_paid", "text"),
    [
        (3600, True, ("1.00 USD", "estimated")),
        (3600, False, ("no cost (local)", "Azure would charge about 1.00 USD")),
        (0.1, True, ("less than 0.0001 USD", "estimated")),
        (0.1, False, ("no cost (local)", "Azure would charge less than 0.0001 USD")),
        (0, True, ("0.0000 USD", "estimated")),
    ],
)
def test_cost_is_described(seconds, is_paid, text):
    assert describe_cost(make_usage(seconds, 0), replace(ONE_USD, is_paid=is_paid)) == text


@pytest.mark.parametrize(
    ("max_usd", "nodes", "spot_nodes", "minutes"),
    [
        (None, 2, 0, 60),
        (100, 2, 0, 60),
        (1, 2, 0, 30),
        (1, 2, 2, 15),
        (0.5, 1, 0, 30),
    ],
)
def test_limit_of_cost_is_earlier_deadline(max_usd, nodes, spot_nodes, minutes):
    options = PoolOptions(nodes=nodes, spot_nodes=spot_nodes)
    assert limited_minutes(60, max_usd, options, ONE_USD) == pytest.approx(minutes)


def test_free_nodes_are_not_limited():
    assert limited_minutes(60, 1, PoolOptions(), Price(usd_per_node_hour=0.0, source="", is_paid=True)) == 60


def test_short_run_may_have_low_limit():
    assert limited_minutes(3, 0.1, PoolOptions(nodes=1), ONE_USD) == 3


@pytest.mark.parametrize(
    ("options", "price", "words"),
    [
        (PoolOptions(pool_id="mine"), ONE_USD, ["`mine`", "topn does not scale"]),
        (PoolOptions(), UNKNOWN, ["standard_nc6", "`usd_per_node_hour`"]),
        (PoolOptions(nodes=10_000), ONE_USD, ["`max_usd` is 1", "10000 nodes", "at least 1,666.67"]),
    ],
)
def test_unenforceable_limit_of_cost_is_refused(options, price, words):
    with pytest.raises(ConfigurationError) as refusal:
        limited_minutes(60, 1, options, price)
    for word in words:
        assert word in str(refusal.value)
