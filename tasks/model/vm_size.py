"""What the name of a VM size says: cores, family, processor architecture and generations of virtual machines.

Sources: https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions and
https://learn.microsoft.com/azure/virtual-machines/generation-2
"""

from __future__ import annotations

import re
from dataclasses import dataclass

X64, ARM64 = "x64", "ARM64"

# The family, the cores, the usable cores if the size is constrained, the features, an accelerator and the version.
_NAME = re.compile(r"standard_([a-z]+)(\d+)(?:-(\d+))?([a-z]*)((?:_[a-z0-9]+)*?)(?:_v(\d+))?", re.IGNORECASE)

# Sizes before this version do not have their number of cores in their name: Standard_D3_v2 has 4 cores.
_FIRST_VERSION_WITH_CORES = 3
# From this version on, all sizes support generation 2. Before it, those with premium storage do.
_FIRST_VERSION_WITH_GENERATION_2 = 4
# From this version on, no size supports generation 1.
_FIRST_VERSION_WITHOUT_GENERATION_1 = 6


@dataclass(frozen=True, kw_only=True)
class VmSize:
    """A VM size.

    Attributes:
        name: The name, such as standard_d2as_v5.
        cores: Number of cores (vCPUs); None if the name does not contain it.
        family: The name under which Azure counts the quota of dedicated cores, such as standardDASv5Family; None if the
            name of the size does not follow the conventions. Upper and lower case can differ.
        architecture: X64 or ARM64.
        generations: The generations of virtual machines that the size supports.
    """

    name: str
    cores: int | None
    family: str | None
    architecture: str
    generations: frozenset[int]

    @property
    def requirements(self) -> str:
        """The architecture and the generations in words: "x64, generation 1 or 2"."""
        return f"{self.architecture}, generation {' or '.join(map(str, sorted(self.generations)))}"


def vm_size(name: str) -> VmSize:
    """Read the name of a VM size."""
    match = _NAME.fullmatch(name)
    if match is None:
        return VmSize(name=name, cores=None, family=None, architecture=X64, generations=frozenset({1, 2}))
    series, cores, usable, features, accelerator, version_text = match.groups()
    version = int(version_text or 1)
    # Before the cores, a "p" is a part of the series: Standard_NP10s is an x64 size.
    is_arm = "p" in features.lower()
    suffix = f"v{version}" if version_text else ""
    if series.upper() == "B" and not version_text:
        counted = "S"  # One family for B1ls, B2s and B2ms.
    elif series.upper() in {"D", "E"} and "a" in features.lower() and version >= _FIRST_VERSION_WITHOUT_GENERATION_1:
        counted = features.upper().replace("S", "")  # For example DADv6 for D2ads_v6.
    else:
        counted = features.upper()
    family = f"standard{series.upper()}{counted}{accelerator.replace('_', '')}{suffix}Family"
    return VmSize(
        name=name,
        cores=int(usable or cores) if version >= _FIRST_VERSION_WITH_CORES else None,
        family=family,
        architecture=ARM64 if is_arm else X64,
        # Names such as Standard_DS3_v2 have the "s" for premium storage before the cores.
        generations=_generations(
            version, has_premium_storage=series[1:].lower() == "s" or "s" in features.lower(), is_arm=is_arm
        ),
    )


def _generations(version: int, *, has_premium_storage: bool, is_arm: bool) -> frozenset[int]:
    if is_arm or version >= _FIRST_VERSION_WITHOUT_GENERATION_1:
        return frozenset({2})
    if version < _FIRST_VERSION_WITH_GENERATION_2 and not has_premium_storage:
        return frozenset({1})
    return frozenset({1, 2})
