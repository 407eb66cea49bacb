"""The number of cores of a VM size."""

from __future__ import annotations

import re

_SIZE = re.compile(r"[a-z]+_([a-z]+)([0-9]+)(?:-([0-9]+))?[a-z]*(?:_(.*))?")
_D_CORES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 11: 2, 12: 4, 13: 8, 14: 16, 15: 20}


def cores_of(vm_size: str) -> int:
    """Return the number of vCPUs in the name of a VM size; 1 if it has none.

    https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions: the number is that of the vCPUs, and a number
    after a hyphen is that of the vCPUs in use. The sizes of the D and Dv2 series are only numbered.
    """
    match = _SIZE.fullmatch(vm_size.lower())
    if not match:
        return 1
    family, number, constrained, version = match.groups()
    if family in {"d", "ds"} and version in {None, "v2"}:
        return int(constrained or _D_CORES.get(int(number), number))
    return int(constrained or number) or 1
