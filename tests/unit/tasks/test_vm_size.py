"""What the name of a VM size says."""

from __future__ import annotations

import pytest

from localbatch.account import vm_sizes
from tasks.model.vm_size import vm_size

# Sources of the families: az vm list-usage, in transcripts of users.
FAMILIES = {
    "standard_d2as_v5": "standardDASv5Family",
    "Standard_D2s_v3": "standardDSv3Family",
    "Standard_F4s_v2": "standardFSv2Family",
    "Standard_E8ads_v5": "standardEADSv5Family",
    "Standard_D2ads_v6": "standardDADv6Family",
    "Standard_D2ds_v6": "standardDDSv6Family",
    "Standard_B2ms": "standardBSFamily",
    "Standard_D2ps_v5": "standardDPSv5Family",
}


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_family_is_that_of_quota(name, family):
    assert vm_size(name).family == family


@pytest.mark.parametrize(
    "name",
    [
        *FAMILIES,
        "standard_np10s",
        "Standard_DS3_v2",
        "Standard_D1_v2",
        "Standard_E4-2ds_v4",
        "Standard_NC24ads_A100_v4",
    ],
)
def test_names_are_read_like_by_local_service(name):
    """The local service has its own code for this, because it shares nothing with the flow."""
    size = vm_size(name)
    assert size.architecture.lower() == vm_sizes.architecture_of(name).lower()
    assert sorted(size.generations) == sorted(vm_sizes.generations_of(name))
    assert size.family.lower() == vm_sizes.family_of(name)
    assert size.cores in {None, vm_sizes.cores_of(name)}


def test_unusual_name_says_nothing():
    size = vm_size("a size of tomorrow")
    assert (size.cores, size.family, sorted(size.generations)) == (None, None, [1, 2])
