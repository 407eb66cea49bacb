"""What nodes cost: the price of a VM size, the estimate of a run, and the time for which a limit is sufficient."""

from __future__ import annotations

import math

from tasks.azure.settings import AzureSettings, account_of
from tasks.errors import ConfigurationError
from tasks.model.pool import PoolOptions
from tasks.report.model import Price, Usage

HOUR_SECONDS = 3600
HOUR_MINUTES = 60

# Pay-as-you-go prices of Linux VMs.
# Source: https://azure.microsoft.com/en-us/pricing/details/virtual-machines/linux/
LIST_PRICES_USD_PER_HOUR = {
    "standard_d2as_v5": 0.086,
    "standard_d4as_v5": 0.172,
    "standard_d8as_v5": 0.344,
    "standard_d2s_v5": 0.096,
    "standard_d4s_v5": 0.192,
    "standard_d2s_v3": 0.096,
    "standard_d4s_v3": 0.192,
}
LIST_PRICE_REGION = "East US"

# A lower amount would be rounded to zero.
MIN_SHOWN_USD = 0.0001

# The price of a spot node varies between this share of the price of a dedicated node and all of it.
# Source: https://learn.microsoft.com/azure/virtual-machines/spot-vms
MIN_SPOT_SHARE = 0.1

# Nodes take minutes to start, and Batch evaluates the autoscale formula every five minutes. A shorter run does nothing.
MIN_LIMITED_MINUTES = 10.0


def price_of(vm_size: str, usd_per_node_hour: float | None, settings: AzureSettings) -> Price:
    """Return the price of a dedicated node: `usd_per_node_hour`, or the list price of the VM size if it is known."""
    is_paid = account_of(settings.batch_endpoint or "") is not None
    if usd_per_node_hour is not None:
        return Price(usd_per_node_hour=usd_per_node_hour, source="set for this run", is_paid=is_paid)
    listed = LIST_PRICES_USD_PER_HOUR.get(vm_size.lower())
    source = f"list price of {vm_size}, Linux, pay as you go, {LIST_PRICE_REGION}" if listed is not None else vm_size
    return Price(usd_per_node_hour=listed, source=source, is_paid=is_paid)


def estimate_usd(usage: Usage, price: Price) -> tuple[float, float] | None:
    """Return the lowest and the highest cost of the nodes of a run, which differ if it had spot nodes.

    Returns:
        Two amounts in US dollars; None if the price or the node time is unknown.
    """
    if price.usd_per_node_hour is None or usage.node_seconds is None:
        return None
    usd_per_second = price.usd_per_node_hour / HOUR_SECONDS
    spot_seconds = usage.spot_node_seconds or 0.0
    return (
        (usage.node_seconds + MIN_SPOT_SHARE * spot_seconds) * usd_per_second,
        (usage.node_seconds + spot_seconds) * usd_per_second,
    )


def describe_cost(usage: Usage | None, price: Price | None) -> tuple[str, str]:
    """Return what the nodes of a run cost, as far as it is known, and a remark or ""."""
    if usage is None:
        return "no cost", "no node was needed"
    estimate = estimate_usd(usage, price) if price is not None else None
    is_local = price is not None and not price.is_paid
    if estimate is None:
        return "no cost (local)" if is_local else "unknown", ""
    lowest, highest = (f"{usd:.4f}" if usd < 1 else f"{usd:,.2f}" for usd in estimate)
    text = f"about {highest} USD" if lowest == highest else f"about {lowest} to {highest} USD"
    if 0 < estimate[1] < MIN_SHOWN_USD:
        text = f"less than {MIN_SHOWN_USD:.4f} USD"
    return ("no cost (local)", f"Azure would charge {text}") if is_local else (text.removeprefix("about "), "estimated")


def limited_minutes(timeout_minutes: float, max_usd: float | None, options: PoolOptions, price: Price) -> float:
    """Return the time limit of a run: the timeout, or the earlier time at which the full pool has cost `max_usd`.

    Spot nodes count with the price of dedicated nodes, which they do not exceed.

    Raises:
        ConfigurationError: The cost cannot be limited, or the limit is too low for any work.
    """
    if max_usd is None:
        return timeout_minutes
    if options.pool_id is not None:
        raise ConfigurationError(
            f"`max_usd` cannot limit the cost of pool `{options.pool_id}`, which topn does not scale. Leave out one of them."
        )
    if price.usd_per_node_hour is None:
        raise ConfigurationError(
            f"`max_usd` needs the price of {price.source}, which is unknown. Set it with `usd_per_node_hour`."
        )
    nodes = options.nodes + options.spot_nodes
    usd_per_minute = nodes * price.usd_per_node_hour / HOUR_MINUTES
    minutes = max_usd / usd_per_minute if usd_per_minute else timeout_minutes
    if minutes < min(MIN_LIMITED_MINUTES, timeout_minutes):
        least_usd = math.ceil(MIN_LIMITED_MINUTES * usd_per_minute * 100) / 100
        raise ConfigurationError(
            f"`max_usd` is {max_usd:g}, and up to {nodes} nodes cost that in {minutes:.1f} minutes, before they have done "
            f"anything. Set it to at least {least_usd:,.2f}, or use fewer nodes."
        )
    return min(timeout_minutes, minutes)


def highest_usd(minutes: float, options: PoolOptions, price: Price) -> float | None:
    """Return what the nodes of a run's own pool cost at most until it ends; None if that is unknown."""
    if options.pool_id is not None or price.usd_per_node_hour is None:
        return None
    return (options.nodes + options.spot_nodes) * price.usd_per_node_hour * minutes / HOUR_MINUTES


def describe_limit(minutes: float, options: PoolOptions, price: Price) -> str:
    """Return when a run ends at the latest, and what the nodes of its own pool can cost until then."""
    end = f"A run ends after at most {minutes:,.4g} minutes."
    if (usd := highest_usd(minutes, options, price)) is None:
        return end
    nodes = options.nodes + options.spot_nodes
    return f"{end} {nodes} {'node costs' if nodes == 1 else 'nodes cost'} at most {usd:,.2f} USD until then ({price.source})."
