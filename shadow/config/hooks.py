"""The settings of the hooks."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from shadow.config.fields import FROZEN, Name, said_twice
from shadow.model.hooks import Hook, HookEvent

__all__ = ["HookSettings", "check_hooks"]


def _check_url(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("must be 16 characters or more; `openssl rand -hex 24` makes one")
    return secret


class HookSettings(BaseModel):
    """A command, called with the event as JSON on its standard input, or a webhook, which gets it as a POST. `url` may
    hold a token, so it is a secret."""

    model_config = FROZEN

    name: Name
    events: Annotated[tuple[HookEvent, ...], Field(min_length=1)]
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    url: Annotated[SecretStr, AfterValidator(_check_url)] | None = None
    secret: Annotated[SecretStr, AfterValidator(_check_secret)] | None = None
    """The key of the signature of a webhook's requests."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for one attempt."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    veto: bool = False
    """Whether a flip waits for its answer before it pauses writes, and is not made if that is no."""
    unanswered: bool = True
    """With `veto`: whether a hook that does not answer within `timeout` counts as a veto."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.command is None) is (self.url is None):
            raise ValueError("needs either command or url")
        if self.secret is not None and self.url is None:
            raise ValueError("secret signs the requests of a webhook: it needs url")
        if self.veto and HookEvent.BEFORE_PAUSE not in self.events:
            raise ValueError("veto needs before_pause in `events`: nothing else can be stopped")
        return self

    def hook(self) -> Hook:
        url = "" if self.url is None else self.url.get_secret_value()
        secret = "" if self.secret is None else self.secret.get_secret_value()
        return Hook(
            self.name,
            frozenset(self.events),
            self.command or (),
            url,
            secret,
            self.timeout,
            self.retries,
            self.veto,
            self.unanswered,
        )


def check_hooks(hooks: tuple[HookSettings, ...]) -> tuple[HookSettings, ...]:
    twice = said_twice([each.name for each in hooks])
    if twice:
        raise ValueError(f"hooks need different names; {twice} occurs twice")
    return hooks
