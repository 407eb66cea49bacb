"""Check pool options, and select the image of a created pool and the managed identity of an existing pool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from tasks.azure.batch import BatchAccount, unknown_pool_properties
from tasks.azure.pool_request import check_extra, external_resource
from tasks.azure.settings import AzureSettings
from tasks.azure.values import Image
from tasks.errors import ConfigurationError
from tasks.model.pool import DEFAULT_POOL, PoolOptions, PoolSetup
from tasks.model.vm_size import ARM64, vm_size
from tasks.workload.base import Workload

# Long enough to change to another image, even in a large company.
MIN_IMAGE_SUPPORT = timedelta(days=90)

# The capability that marks images of generation 2. Source: https://github.com/Azure/Batch/issues/178
GENERATION_2 = "generation2vmimage"

# The value of `node_identity` for signed URLs instead of an identity.
NO_IDENTITY = "none"


def check_pool_options(options: PoolOptions, settings: AzureSettings) -> None:
    """Check the options of a pool before anything is created.

    Raises:
        ConfigurationError: The options contradict each other, `extra` is invalid, or the credential cannot be used.
    """
    options.check()
    if unknown := unknown_pool_properties(options.setup.extra):
        raise ConfigurationError(
            f"`extra` of the pool contains properties that the Batch REST API does not have: {', '.join(unknown)}."
        )
    check_extra(options)
    # The service responds with 403 and "The specified type of authentication SharedKey is not allowed".
    # Source: https://github.com/Azure/aztk/issues/240
    if settings.batch_key is not None and (option := external_resource(options.setup)) is not None:
        raise ConfigurationError(
            f"Batch does not accept an account key for a pool with `{option}`. Unset TOPN_BATCH_KEY to use an identity."
        )


def check_slots(workload: Workload, slots_per_node: int) -> None:
    """Check that a node has enough slots for a Batch task, which would wait for ever otherwise.

    Raises:
        ConfigurationError: It has not.
    """
    if workload.required_slots > slots_per_node:
        raise ConfigurationError(
            f"A Batch task of workload {workload.name} needs {workload.required_slots} slots, and a node has "
            f"{slots_per_node}. Set a higher `slots_per_node`, another `vm_size`, or another pool."
        )


def choose_image(account: BatchAccount, options: PoolOptions, until: datetime) -> Image:
    """Return the image that the user configured, or the newest one of the image family that fits the VM size.

    Raises:
        ConfigurationError: No verified image of the family fits the VM size and is supported until `until`.
    """
    setup = options.setup
    if setup.image_id is not None:
        return Image(
            publisher="",
            offer="",
            sku="",
            version="",
            node_agent_sku=setup.node_agent_sku or "",
            is_verified=False,
            is_linux=True,
            end_of_life_at=None,
            resource_id=setup.image_id,
        )
    return newest_image(account.list_images(), until, options)


def newest_image(images: Sequence[Image], until: datetime, options: PoolOptions = DEFAULT_POOL) -> Image:
    """Return the newest verified Linux image of a family that fits the VM size and is supported until `until`.

    Among the images of one release, generation 2 comes before generation 1, and fewer drivers before more.

    Raises:
        ConfigurationError: No such image exists.
    """
    setup, size = options.setup, vm_size(options.vm_size)
    family, needs_containers = setup.image_family, setup.container_image is not None
    kind = f"image of the family `{family}`{' that runs containers' if needs_containers else ''}"
    found = [
        image
        for image in images
        if image.is_linux
        and image.is_verified
        and image.node_agent_sku.startswith(family)
        and (image.runs_containers or not needs_containers)
    ]
    if not found:
        raise ConfigurationError(f"The Batch account has no verified {kind}. Set `image_family` to another family.")
    generations = {image: generation_of(image, images) for image in found}
    fitting = [
        image
        for image in found
        if image.architecture == size.architecture and generations[image] in {None, *size.generations}
    ]
    if not fitting:
        raise ConfigurationError(
            f"No verified {kind} fits the VM size `{size.name}` ({size.requirements}). "
            "Set `vm_size` or `image_family` to another value."
        )
    supported = [image for image in fitting if image.end_of_life_at is None or image.end_of_life_at > until]
    if not supported:
        last_end = max(image.end_of_life_at for image in fitting if image.end_of_life_at is not None)
        raise ConfigurationError(
            f"Support for every verified {kind} ends before the run does, the last on {last_end:%Y-%m-%d}. "
            "Set `image_family` to another family."
        )

    def rank(image: Image) -> tuple[object, ...]:
        release = [int(number) for number in re.findall(r"\d+", image.node_agent_sku)]
        return (
            release,
            generations[image] or 0,
            -len(image.capabilities - {GENERATION_2}),
            image.node_agent_sku,
            image.sku,
        )

    return max(supported, key=rank)


def generation_of(image: Image, images: Iterable[Image]) -> int | None:
    """Return the generation of virtual machines that an image is for; None if Batch does not mark any image."""
    if GENERATION_2 in image.capabilities or image.architecture == ARM64:
        return 2
    return 1 if any(GENERATION_2 in other.capabilities for other in images) else None


def support_warning(image: Image, now: datetime) -> str | None:
    """Return a warning if support for an image ends within 90 days; otherwise None."""
    if image.end_of_life_at is None or image.end_of_life_at > now + MIN_IMAGE_SUPPORT:
        return None
    return f"Support for the image {image.offer} {image.sku} ends on {image.end_of_life_at:%Y-%m-%d}."


def choose_identity(pool_id: str, identities: Sequence[str], setup: PoolSetup) -> str | None:
    """Return the managed identity that nodes of an existing pool use for blobs; None means signed URLs.

    Args:
        pool_id: The pool.
        identities: Resource ids of the pool's managed identities.
        setup: The pool setup, whose `node_identity` is a name, a resource id, "none" or not set.

    Raises:
        ConfigurationError: The pool does not have this identity, or has several and none is set.
    """
    names = ", ".join(identity.rsplit("/", 1)[-1] for identity in identities) or "none"
    wanted = setup.node_identity
    if wanted == NO_IDENTITY:
        return None
    if wanted is None:
        if len(identities) > 1:
            raise ConfigurationError(f"Pool `{pool_id}` has several identities ({names}). Set `node_identity`.")
        return next(iter(identities), None)
    for identity in identities:
        if wanted.lower() in {identity.lower(), identity.rsplit("/", 1)[-1].lower()}:
            return identity
    raise ConfigurationError(f"Pool `{pool_id}` has no identity `{wanted}`. Set `node_identity` to one of: {names}.")
