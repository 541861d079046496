"""Errors as OpenAI's clients read them: a status, and an object that says what is wrong."""

from __future__ import annotations

from typing import Any

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
"""The type of an error, by its status."""


class Failure(Exception):
    """A request that cannot be answered.

    Args:
        message: The problem and the remedy, in one line.
        param: The field that is wrong, such as ``messages[0].content``.
        code: A name for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def record(self) -> dict[str, Any]:
        """The body of the response. ``type`` is for clients of Anthropic."""
        kind = KINDS[self.status]
        return {
            "type": "error",
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }


def wrong(param: str, message: str, *, code: str = "invalid_value") -> Failure:
    """A field of the request is wrong."""
    return Failure(400, message, param=param, code=code)


def unsupported(param: str, message: str) -> Failure:
    """A field asks for something that this server does not do. It is refused rather than ignored."""
    return wrong(param, message, code="unsupported_value")
