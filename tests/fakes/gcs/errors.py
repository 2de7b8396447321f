"""Refusals, in the shape and with the words of the JSON API.

Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""

from __future__ import annotations

import json
from http import HTTPStatus

OBJECT, BUCKET = "object", "bucket"


class ApiError(Exception):
    """An answer other than success, as the API documents it.

    Args:
        status: the HTTP status; 304 has no body.
        reason: the machine-readable `errors[].reason`.
        message: for people.
        domain: `global`, or `usageLimits` for quotas.
        location: the header or parameter that caused it, as `(locationType, location)`.
    """

    def __init__(
        self, status: int, reason: str, message: str, *, domain: str = "global", location: tuple[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.message = message
        self.detail = {"message": message, "domain": domain, "reason": reason}
        if location is not None:
            self.detail["locationType"], self.detail["location"] = location

    def body(self) -> bytes:
        """The JSON error document; empty for 304, which may carry none."""
        if self.status == HTTPStatus.NOT_MODIFIED:
            return b""
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [self.detail]}}).encode()


def invalid(message: str) -> ApiError:
    """400 for a request that makes no sense."""
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid", message)


def invalid_parameter(name: str, message: str) -> ApiError:
    """400 for a query parameter that makes no sense."""
    return ApiError(HTTPStatus.BAD_REQUEST, "invalidParameter", message, location=("parameter", name))


def login_required() -> ApiError:
    """401 for a request without credentials."""
    return ApiError(HTTPStatus.UNAUTHORIZED, "required", "Login Required", location=("header", "Authorization"))


def invalid_credentials() -> ApiError:
    """401 for a token that is unknown, expired or revoked."""
    return ApiError(HTTPStatus.UNAUTHORIZED, "authError", "Invalid Credentials", location=("header", "Authorization"))


def forbidden(principal: str, permission: str, kind: str) -> ApiError:
    """403 in the words of the real service, which name the caller and the permission that is missing."""
    message = (
        f"{principal} does not have {permission} access to the Google Cloud Storage {kind}. "
        f"Permission '{permission}' denied on resource (or it may not exist)."
    )
    return ApiError(HTTPStatus.FORBIDDEN, "forbidden", message)


def retained(bucket: str, name: str, until: str) -> ApiError:
    """403 for the deletion or replacement of an object that the bucket's retention policy still protects."""
    message = (
        f"Object '{bucket}/{name}' is subject to bucket's retention policy or object retention "
        f"and cannot be deleted or overwritten until {until}"
    )
    return ApiError(HTTPStatus.FORBIDDEN, "retentionPolicyNotMet", message)


def no_such_bucket() -> ApiError:
    """404 for a bucket."""
    return ApiError(HTTPStatus.NOT_FOUND, "notFound", "The specified bucket does not exist.")


def no_such_object(bucket: str, name: str) -> ApiError:
    """404 for an object, or for the generation of it that was asked for."""
    return ApiError(HTTPStatus.NOT_FOUND, "notFound", f"No such object: {bucket}/{name}")


def no_such_path() -> ApiError:
    """404 for a URL that names no method of the API."""
    return ApiError(HTTPStatus.NOT_FOUND, "notFound", "Not Found")


def bucket_exists() -> ApiError:
    """409 for the creation of a bucket that is there already."""
    message = "Your previous request to create the named bucket succeeded and you already own it."
    return ApiError(HTTPStatus.CONFLICT, "conflict", message)


def condition_not_met() -> ApiError:
    """412 for a precondition that does not hold."""
    message = "At least one of the pre-conditions you specified did not hold."
    return ApiError(HTTPStatus.PRECONDITION_FAILED, "conditionNotMet", message, location=("header", "If-Match"))


def not_modified() -> ApiError:
    """304 for a NotMatch precondition that names the current number."""
    return ApiError(HTTPStatus.NOT_MODIFIED, "notModified", "Not Modified")


def write_rate_exceeded(bucket: str, name: str) -> ApiError:
    """429 for more mutations of one object than the service allows."""
    message = (
        f"The object {bucket}/{name} exceeded the rate limit for object mutation operations (create, update, "
        "and delete). Please reduce your request rate. See https://cloud.google.com/storage/docs/gcs429."
    )
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "rateLimitExceeded", message, domain="usageLimits")


def not_emulated(what: str) -> ApiError:
    """501 for a part of the API that this emulator does not have, so that no test leans on it unawares."""
    return ApiError(HTTPStatus.NOT_IMPLEMENTED, "notImplemented", f"{what} is not emulated.")


def injected(status: int, bucket: str, name: str) -> ApiError:
    """The documented body for a status that a test asked for."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return write_rate_exceeded(bucket, name)
    known = {
        HTTPStatus.NOT_MODIFIED: not_modified,
        HTTPStatus.UNAUTHORIZED: invalid_credentials,
        HTTPStatus.NOT_FOUND: lambda: no_such_object(bucket, name),
        HTTPStatus.PRECONDITION_FAILED: condition_not_met,
    }
    make = known.get(HTTPStatus(status))
    return make() if make else ApiError(status, "backendError", "We encountered an internal error. Please try again.")
