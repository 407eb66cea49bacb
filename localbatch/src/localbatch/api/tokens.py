"""Bearer tokens of Microsoft Entra ID: their claims are checked, their signatures are not.

This corresponds to `--oauth basic` of Azurite.

https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
https://learn.microsoft.com/azure/batch/batch-aad-auth: the audience of Azure Batch
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime

from localbatch import errors
from localbatch.account.specs import Json

AUDIENCE = "https://batch.core.windows.net/"
STORAGE_AUDIENCE = "https://storage.azure.com/"
LIFETIME_SECONDS = 3600
# A token has a header, claims and a signature.
_PARTS = 3


def check_token(token: str, tenant: str | None, now: datetime) -> None:
    """Check that a token is valid at an instant for Azure Batch, and for the tenant if there is one.

    Raises:
        ServiceError: AuthenticationFailed, with the reason.
    """
    claims = _claims(token)
    reason = None
    # Tokens have the audience with or without the slash, depending on their version.
    if str(claims.get("aud")).rstrip("/") != AUDIENCE.rstrip("/"):
        reason = f"The audience of the token is {claims.get('aud')!r} instead of {AUDIENCE!r}"
    # nbf and exp are seconds since 1970.
    elif not isinstance(claims.get("nbf"), int) or not isinstance(claims.get("exp"), int):
        reason = "The token has no valid claims nbf and exp"
    elif now.timestamp() < claims["nbf"]:
        reason = "The token is not valid yet"
    elif claims["exp"] <= now.timestamp():
        reason = "The token has expired"
    elif tenant and str(claims.get("tid")).lower() != tenant.lower():
        reason = f"The tenant of the token is {claims.get('tid')!r} instead of {tenant!r}"
    if reason:
        raise errors.token_refused(AuthenticationErrorDetail=reason)


def issue_token(audience: str, tenant: str | None, now: datetime) -> str:
    """Return a token for the identity of a node. It is not signed, since signatures are not checked."""
    tenant, issued_at = tenant or str(uuid.UUID(int=0)), int(now.timestamp())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + LIFETIME_SECONDS,
        "tid": tenant,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)] + [b"unsigned"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _claims(token: str) -> Json:
    try:
        parts = token.split(".")
        # JSON Web Tokens omit the padding of Base64.
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict) or len(parts) != _PARTS:
        raise errors.token_refused(AuthenticationErrorDetail="The token is not a JSON Web Token")
    return claims
