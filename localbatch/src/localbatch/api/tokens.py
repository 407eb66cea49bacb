"""Microsoft Entra ID without Microsoft Entra ID: bearer tokens, read but not verified.

As with Azurite's `--oauth basic`, whom a token is for and how long are checked, and who signed it is not.

Source: "Access token claims reference"; "Authenticate Azure Batch services with Microsoft Entra ID" for the audience.
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
LIFE_SECONDS = 3600
_PARTS = 3
"""Of a signed token: its header, its claims and its signature."""


def check_token(token: str, tenant: str | None, now: datetime) -> None:
    """Check that a token is for Azure Batch and the tenant, if one is named, at an instant.

    Raises:
        ServiceError: AuthenticationFailed, with the reason.
    """
    claims = _claims(token)
    reason = None
    if str(claims.get("aud")).rstrip("/") != AUDIENCE.rstrip("/"):
        reason = f"The audience of the token is {claims.get('aud')!r} rather than {AUDIENCE!r}"
    elif not isinstance(claims.get("nbf"), int) or not isinstance(claims.get("exp"), int):
        reason = "The token does not say from when and until when it holds"
    elif now.timestamp() < claims["nbf"]:
        reason = "The token is not valid yet"
    elif claims["exp"] <= now.timestamp():
        reason = "The token has expired"
    elif tenant and str(claims.get("tid")).lower() != tenant.lower():
        reason = f"The token is of the tenant {claims.get('tid')!r} rather than {tenant!r}"
    if reason:
        raise errors.token_refused(AuthenticationErrorDetail=reason)


def issue_token(audience: str, tenant: str | None, now: datetime) -> str:
    """Issue a token to a node's identity, as good as any here: nobody signs it."""
    tenant, issued_at = tenant or str(uuid.UUID(int=0)), int(now.timestamp())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + LIFE_SECONDS,
        "tid": tenant,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)] + [b"unsigned"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _claims(token: str) -> Json:
    try:
        parts = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict) or len(parts) != _PARTS:
        raise errors.token_refused(AuthenticationErrorDetail="The token is no JSON Web Token")
    return claims
