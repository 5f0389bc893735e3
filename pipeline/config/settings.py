"""One installation's settings: where its servers are, whose decisions it believes, which accounts it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipeline.config.reading import Strict, parse, validate
from pipeline.errors import UsageError

Notice = Literal["approval wanted", "decided", "expired", "promoted", "rolled back", "alarm", "drift"]
_SECRET = re.compile("password|passphrase|secret|token|access_key|customer_key")


class LedgerSettings(Strict):
    """Database of the ledger, an address for each account; Postgres holds every account to its own kinds of event.

    `uri` for the line, `approval_uri` for decisions and the gate, `promotion_uri` for everything in production,
    `reader_uri` for servers and reports, `owner_uri` for migrations. A settings file names those that its job may
    use; the others fall back to `uri`, and Postgres refuses what that account may not write.
    """

    uri: str
    approval_uri: str | None = None
    promotion_uri: str | None = None
    reader_uri: str | None = None
    owner_uri: str | None = None


class MlflowSettings(Strict):
    """The MLflow tracking server. The files hold ``user:password``; without them MLflow asks nobody who they are.

    `workspace` is for a server that was started with ``--enable-workspaces``.
    """

    uri: str
    credentials: Path | None = None
    promotion_credentials: Path | None = None
    workspace: str | None = None


class JenkinsSettings(Strict):
    """The Jenkins controller whose decisions are believed. `token_file` holds ``user:api-token``.

    `ca_file` holds the certificates of a company's own authority, in PEM. A build of `approval_job` is a decision of
    whoever started it. `jobs` names, by model, the job that is asked for a new one when drift was measured.
    """

    url: str
    token_file: Path
    ca_file: Path | None = None
    approval_job: str | None = None
    jobs: Mapping[str, str] = {}


class GithubSettings(Strict):
    """The GitHub, or GitHub Enterprise Server, whose reviews are believed; the token in `token_file` reads Actions.

    A review counts when it lets a run of `workflow` in `repository` (``owner/name``) into `environment`.
    """

    url: str
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    token_file: Path
    ca_file: Path | None = None
    workflow: str = ".github/workflows/gatehouse.yml"
    environment: str = "gatehouse-approval"


class ForgeSettings(Strict):
    """The server with the repository, where reports are posted; `repository` is ``group/project``, ``KEY/slug``.

    `gitea` is Forgejo too. `evidence_url` says where evidence pages are found; ``{run}`` in it is the run.
    """

    kind: Literal["gitlab", "github", "bitbucket", "gitea"]
    url: str
    repository: Annotated[str, Field(pattern=r"^[\w.~-]+(/[\w.-]+)+$")]
    token_file: Path
    ca_file: Path | None = None
    evidence_url: str | None = None


class OidcSettings(Strict):
    """An identity provider whose tokens are believed: its keys from a file, or from its address."""

    issuer: str
    audience: str
    keys_file: Path | None = None
    keys_url: str | None = None
    user_claim: str = "preferred_username"
    max_age_seconds: Annotated[int, Field(gt=0)] = 600

    @model_validator(mode="after")
    def _has_keys(self) -> OidcSettings:
        if (self.keys_file is None) == (self.keys_url is None):
            raise ValueError("name either `keys_file` or `keys_url`")
        return self


class ApprovalSettings(Strict):
    """Who is in which group, and whose SSH keys sign decisions (OpenSSH's allowed-signers file)."""

    groups: Mapping[str, tuple[str, ...]] = {}
    allowed_signers: Path | None = None


class SigningSettings(Strict):
    """Signatures of packages: the signer's key, where this job signs, and the keys that this machine trusts.

    `key` is a PEM file or a ``pkcs11:`` URI. With `certificate` and its `chain` the trusted files are certificates of
    authorities, else public keys. Several trusted at once are a key rotation. `sources` are trusted with bundles of
    other installations, and with nothing that is served here.
    """

    key: str | None = None
    key_password_file: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    trusted: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()


class NotificationSettings(Strict):
    """Who is told what: files with apprise addresses by channel, and for a channel the notices that it wants."""

    channels: Annotated[Mapping[str, Path], Field(min_length=1)]
    events: Mapping[str, tuple[Notice, ...]] = {}

    @model_validator(mode="after")
    def _names_channels(self) -> NotificationSettings:
        unknown = sorted(set(self.events) - set(self.channels))
        if unknown:
            raise ValueError(f"no channel is called {', '.join(unknown)}")
        return self


class PyfuncSettings(Strict):
    """Packages that hold a pickle (framework pyfunc): whether production runs them, in a process of its own.

    It does not unless somebody who answers for the machine writes `production = true`.
    """

    production: bool = False


class DvcSettings(Strict):
    """A DVC remote on the company's own storage, and DVC's options for it.

    `remote` is a folder, ``ssh://user@host/path`` or ``s3://bucket/path``; S3 needs the option `endpointurl`, so that
    nothing goes to a host that nobody named. Credentials come from the environment or from files, never from here.
    """

    remote: str
    options: Mapping[str, bool | int | str] = {}

    @model_validator(mode="after")
    def _is_our_own(self) -> DvcSettings:
        # Not a ValueError: the message of one shows what was given, and that may hold a password.
        parts, endpoint = urlsplit(self.remote), str(self.options.get("endpointurl", ""))
        if parts.password is not None or "@" in endpoint or any(map(_SECRET.search, self.options)):
            raise UsageError(
                "credentials do not stand in the settings",
                where="settings: dvc",
                fix="name them by the environment or a file of their own: infra/dvc/README.md",
            )
        if parts.scheme not in ("", "ssh", "s3") or (not parts.scheme and not Path(self.remote).is_absolute()):
            raise UsageError(
                "`remote` is an absolute folder, ssh://… or s3://…",
                where="settings: dvc.remote",
                fix="name one of these",
            )
        if parts.scheme == "s3" and not endpoint:
            raise UsageError(
                "an s3 remote needs `endpointurl`, your own storage's address",
                where="settings: dvc.options",
                fix='[dvc.options] endpointurl = "https://…"',
            )
        return self


class EnvironmentSettings(Strict):
    """One environment: the address of its model server."""

    server: str


class Settings(Strict):
    """One installation. `embedded` is the one-machine stack: only there are demo identities accepted."""

    home: Path
    ledger: LedgerSettings
    mlflow: MlflowSettings
    environments: Mapping[Literal["staging", "production"], EnvironmentSettings]
    sources: Mapping[str, str] = {}
    jenkins: JenkinsSettings | None = None
    github: GithubSettings | None = None
    forge: ForgeSettings | None = None
    oidc: OidcSettings | None = None
    approval: ApprovalSettings = ApprovalSettings()
    signing: SigningSettings | None = None
    pyfunc: PyfuncSettings = PyfuncSettings()
    notifications: NotificationSettings | None = None
    dvc: DvcSettings | None = None
    embedded: bool = False


def load_settings(path: Path) -> Settings:
    """Read the installation's settings.

    Raises:
        UsageError: no such file, or something in it is wrong.
    """
    if not path.is_file():
        raise UsageError(
            "no installation found",
            where=str(path),
            fix="gatehouse up (starts the embedded stack), or name a settings file with GATEHOUSE_SETTINGS",
        )
    return validate(Settings, parse(path.read_text(encoding="utf-8"), str(path)), str(path))
