"""What is chosen for a pool before anything is created: its image, and as whom its nodes read and write blobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.azure.batch import BatchAccount, unknown_pool_properties
from tasks.azure.pool_request import check_extra
from tasks.azure.values import Image
from tasks.errors import ConfigurationError
from tasks.model.pool import DEFAULT_SETUP, PoolOptions, PoolSetup

# Long enough to change to another image, however slow a company's ways are.
ENDING_SUPPORT = timedelta(days=90)

# What a user says for no identity.
NO_IDENTITY = "none"


def check_pool_options(options: PoolOptions) -> None:
    """Check the options of a pool before anything is created.

    Raises:
        ConfigurationError: They contradict each other, or `extra` cannot be used.
    """
    options.check()
    if unknown := unknown_pool_properties(options.setup.extra):
        raise ConfigurationError(
            f"`extra` of the pool contains {', '.join(unknown)}, which no pool of the Batch REST API has."
        )
    check_extra(options)


def choose_image(account: BatchAccount, setup: PoolSetup, until: datetime) -> Image:
    """Choose the image of the user's own, or the newest of the family that is supported until an instant.

    Raises:
        ConfigurationError: There is none.
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
    """Choose the newest verified Linux image of a family that is supported until an instant.

    Raises:
        ConfigurationError: There is none.
    """
    found = [
        image
        for image in images
        if image.is_linux
        and image.is_verified
        and image.node_agent_sku.startswith(family)
        and (image.runs_containers or not needs_containers)
    ]
    usable = [image for image in found if image.end_of_life_at is None or image.end_of_life_at > until]
    if usable:
        return max(usable, key=lambda image: (image.node_agent_sku, image.sku))
    kind = f"image of the family {family}{' that runs containers' if needs_containers else ''}"
    if ends := [image.end_of_life_at for image in found if image.end_of_life_at is not None]:
        raise ConfigurationError(
            f"The support of each verified {kind} ends before the run, the last on {max(ends):%Y-%m-%d}: "
            "name another as image_family."
        )
    raise ConfigurationError(f"The Batch account offers no verified {kind}: name another as image_family.")


def support_warning(image: Image, now: datetime) -> str | None:
    """Say that the support of an image ends soon; None where it does not."""
    if image.end_of_life_at is None or image.end_of_life_at > now + ENDING_SUPPORT:
        return None
    return f"The support of image {image.offer} {image.sku} ends on {image.end_of_life_at:%Y-%m-%d}."


def choose_identity(pool_id: str, identities: Sequence[str], setup: PoolSetup) -> str | None:
    """Choose as whom the nodes of an existing pool read and write blobs; None is by signed URLs.

    Args:
        pool_id: The pool.
        identities: Resource ids of the managed identities that its nodes have.
        setup: What the user says of it.

    Raises:
        ConfigurationError: The user names one that the pool does not have, or none of several.
    """
    names = ", ".join(identity.rsplit("/", 1)[-1] for identity in identities) or "none"
    wanted = setup.node_identity
    if wanted == NO_IDENTITY:
        return None
    if wanted is None:
        if len(identities) > 1:
            raise ConfigurationError(f"Pool {pool_id} has several identities ({names}): name one as node_identity.")
        return next(iter(identities), None)
    for identity in identities:
        if wanted.lower() in {identity.lower(), identity.rsplit("/", 1)[-1].lower()}:
            return identity
    raise ConfigurationError(f"Pool {pool_id} has no identity {wanted} (it has {names}): name another.")
