"""Check pool options, and select the image of a created pool and the managed identity of an existing pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.azure.batch import BatchAccount, unknown_pool_properties
from tasks.azure.pool_request import check_extra
from tasks.azure.values import Image
from tasks.errors import ConfigurationError
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, PoolSetup

# Long enough to change to another image, even in a large company.
MIN_IMAGE_SUPPORT = timedelta(days=90)

# The value of `node_identity` for signed URLs instead of an identity.
NO_IDENTITY = "none"


def check_pool_options(options: PoolOptions) -> None:
    """Check the options of a pool before anything is created.

    Raises:
        ConfigurationError: The options contradict each other, or `extra` is invalid.
    """
    options.check()
    if unknown := unknown_pool_properties(options.setup.extra):
        raise ConfigurationError(
            f"`extra` of the pool contains properties that the Batch REST API does not have: {', '.join(unknown)}."
        )
    check_extra(options)


def choose_image(account: BatchAccount, setup: PoolSetup, until: datetime) -> Image:
    """Return the image that the user configured, or the newest one of the image family.

    Raises:
        ConfigurationError: No verified image of the family is supported until `until`.
    """
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
    return newest_image(account.images(), until, setup.image_family, needs_containers=setup.container_image is not None)


def newest_image(
    images: list[Image],
    until: datetime,
    family: str = DEFAULT_SETUP.image_family,
    *,
    needs_containers: bool = False,
) -> Image:
    """Return the newest verified Linux image of a family that is supported until `until`.

    Raises:
        ConfigurationError: No such image exists.
    """
    found = [
        image
        for image in images
        if image.is_linux
        and image.is_verified
        and image.node_agent_sku.startswith(family)
        and (image.runs_containers or not needs_containers)
    ]
    supported = [image for image in found if image.end_of_life_at is None or image.end_of_life_at > until]
    if supported:
        return max(supported, key=lambda image: (image.node_agent_sku, image.sku))
    kind = f"image of the family `{family}`{' that runs containers' if needs_containers else ''}"
    if support_ends := [image.end_of_life_at for image in found if image.end_of_life_at is not None]:
        raise ConfigurationError(
            f"Support for every verified {kind} ends before the run does, the last on {max(support_ends):%Y-%m-%d}. "
            "Set `image_family` to another family."
        )
    raise ConfigurationError(f"The Batch account has no verified {kind}. Set `image_family` to another family.")


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
