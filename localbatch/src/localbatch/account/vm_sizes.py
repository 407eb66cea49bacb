"""What the name of a VM size says: its cores, its quota family, its architecture and its generations.

https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions
"""

from __future__ import annotations

import re
from typing import NamedTuple

# standard_e4-2ads_v5: family, vCPUs, vCPUs in use, features, and the rest, which ends with the version.
_SIZE = re.compile(r"[a-z]+_([a-z]+)([0-9]+)(?:-([0-9]+))?([a-z]*)(?:_(.*))?")
# The names of cloud services, which pools with a cloudServiceConfiguration have.
_CLOUD_SERVICE_SIZES = {
    "extrasmall": "standard_a0",
    "small": "standard_a1",
    "medium": "standard_a2",
    "large": "standard_a3",
    "extralarge": "standard_a4",
}
_D_CORES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 11: 2, 12: 4, 13: 8, 14: 16, 15: 20}
# All sizes since these versions boot generation 2, and only that.
_FIRST_WITH_GENERATION_2 = 4
_FIRST_WITHOUT_GENERATION_1 = 6


class _Size(NamedTuple):
    family: str
    number: int
    constrained: int | None
    features: str
    rest: str

    @property
    def version(self) -> int:
        found = re.search("(?:^|_)v([0-9]+)$", self.rest)
        return int(found[1]) if found else 1


def _parse(vm_size: str) -> _Size | None:
    name = vm_size.lower()
    match = _SIZE.fullmatch(_CLOUD_SERVICE_SIZES.get(name, name))
    if not match:
        return None
    family, number, constrained, features, rest = match.groups()
    return _Size(family, int(number), int(constrained) if constrained else None, features, rest or "")


def is_vm_size(name: str) -> bool:
    """Whether a name looks like that of a VM size, such as standard_d2s_v3. Which sizes exist is not known here."""
    return _parse(name) is not None


def cores_of(vm_size: str) -> int:
    """Return the number of vCPUs in the name of a VM size; 1 if it has none.

    The number is that of the vCPUs, and a number after a hyphen is that of the vCPUs in use. The sizes of the D and Dv2
    series are only numbered.
    """
    size = _parse(vm_size)
    if not size:
        return 1
    numbered = size.family in {"d", "ds"} and size.rest in {"", "v2"}
    cores = _D_CORES.get(size.number, size.number) if numbered else size.number
    return size.constrained or cores or 1


def family_of(vm_size: str) -> str:
    """Return the quota family of a VM size in lower case, such as standarddasv5family for standard_d2as_v5."""
    size = _parse(vm_size)
    if not size:
        return ""
    features = size.features
    if size.family == "b" and not size.rest:
        features = "s"  # One family for standard_b1ls, standard_b2s and standard_b2ms.
    elif size.family in {"d", "e"} and "a" in features and size.version >= _FIRST_WITHOUT_GENERATION_1:
        features = features.replace("s", "")  # standardDadv6Family for standard_d2ads_v6, but standardDdsv6Family.
    return f"standard{size.family}{features}{size.rest.replace('_', '')}family"


def architecture_of(vm_size: str) -> str | None:
    """Return the CPU architecture of a VM size, x64 or Arm64; None if its name is unusual."""
    size = _parse(vm_size)
    if not size:
        return None
    # Only features count: the `p` of standard_np10s is in its family, which has FPGAs.
    return "Arm64" if "p" in size.features else "x64"


def generations_of(vm_size: str) -> tuple[int, ...]:
    """Return the generations of images that a VM size can boot.

    https://learn.microsoft.com/azure/virtual-machines/generation-2: earlier sizes need premium storage (`s`) for generation 2.
    """
    size = _parse(vm_size)
    if not size:
        return (1, 2)
    if size.version >= _FIRST_WITHOUT_GENERATION_1 or "p" in size.features:
        return (2,)
    has_premium_storage = "s" in size.features or size.family in {"ds", "gs"}
    return (1, 2) if has_premium_storage or size.version >= _FIRST_WITH_GENERATION_2 else (1,)
