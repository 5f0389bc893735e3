# ruff: noqa: N815  # the keys are the plugins' own
"""The keys that infra/jenkins/jenkins.yaml and realms/ may use, as the plugins' sources have them.

Configuration as Code refuses a key that no setter stands for, and the controller then does not start. A key that is
missing here is not wrong: look it up in the plugin's source or its own test files, and add it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(min_length=1)]
Permission = Literal[
    "Overall/Administer", "Overall/Read", "Job/Read", "Job/Build", "Job/Cancel", "Job/Configure", "Job/Workspace"
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# role-strategy: casc/RoleDefinition, casc/RoleBasedAuthorizationStrategyConfigurator
class Entry(Strict):
    user: Name | None = None
    group: Name | None = None

    @model_validator(mode="after")
    def one_of_both(self):
        if (self.user is None) == (self.group is None):
            raise ValueError("an entry names a user or a group")
        return self


class Role(Strict):
    name: Name
    pattern: Name | None = None
    permissions: list[Permission]
    entries: list[Entry]


class Roles(Strict):
    global_: list[Role] = Field(alias="global")
    items: list[Role]


class RoleBased(Strict):
    roles: Roles


class Authorization(Strict):
    roleBased: RoleBased


# core: DumbSlave, JNLPLauncher
class Inbound(Strict):
    webSocket: bool


class Launcher(Strict):
    inbound: Inbound


class Permanent(Strict):
    name: Name
    labelString: Name
    mode: Literal["NORMAL", "EXCLUSIVE"]
    numExecutors: int
    remoteFS: Name
    launcher: Launcher


class Node(Strict):
    permanent: Permanent


# ldap: LDAPSecurityRealm, LDAPConfiguration (jenkins/security/plugins/ldap/casc.yml)
class LdapServer(Strict):
    server: Name
    rootDN: Name
    managerDN: Name
    managerPasswordSecret: Name
    userSearch: Name
    groupSearchFilter: Name


class Ldap(Strict):
    configurations: list[LdapServer]
    userIdStrategy: Literal["CaseInsensitive", "CaseSensitive"]
    groupIdStrategy: Literal["CaseInsensitive", "CaseSensitive"]


# oic-auth 4: docs/configuration/README.md, ConfigurationAsCode*.yml
class WellKnown(Strict):
    wellKnownOpenIDConfigurationUrl: Name
    scopesOverride: Name


class OidcServer(Strict):
    wellKnown: WellKnown


class Oidc(Strict):
    clientId: Name
    clientSecret: Name
    serverConfiguration: OidcServer
    userNameField: Name
    fullNameFieldName: Name
    emailFieldName: Name
    groupsFieldName: Name
    allowTokenAccessWithoutOicSession: Literal[True]
    properties: list[Literal["pkce", "disableNonce"]]


# core: HudsonPrivateSecurityRealm (configuration-as-code, demos/embedded-userdatabase)
class Account(Strict):
    id: Name
    password: Name


class Local(Strict):
    allowsSignup: Literal[False]
    users: list[Account]


class Realm(Strict):
    ldap: Ldap | None = None
    oic: Oidc | None = None
    local: Local | None = None

    @model_validator(mode="after")
    def exactly_one(self):
        if len(self.model_fields_set) != 1:
            raise ValueError("one realm, not several")
        return self


class Core(Strict):
    systemMessage: Name
    numExecutors: Literal[0]
    mode: Literal["EXCLUSIVE"]
    crumbIssuer: Literal["standard"]
    securityRealm: Realm
    authorizationStrategy: Authorization
    nodes: list[Node]


# ssh-credentials, credentials (configuration-as-code, demos/credentials)
class DirectEntry(Strict):
    privateKey: Name


class PrivateKeySource(Strict):
    directEntry: DirectEntry


class SshKey(Strict):
    scope: Literal["GLOBAL", "SYSTEM"]
    id: Name
    description: Name
    username: Name
    privateKeySource: PrivateKeySource


class Credential(Strict):
    basicSSHUserPrivateKey: SshKey


class Domain(Strict):
    credentials: list[Credential]


class System(Strict):
    domainCredentials: list[Domain]


class Credentials(Strict):
    system: System


# git-client: README.adoc; core: jenkins/security/csp/impl/CspConfiguration
class HostKeys(Strict):
    approvedHostKeys: Name


class HostKeyStrategy(Strict):
    manuallyProvidedKeyVerificationStrategy: HostKeys


class HostKeyVerification(Strict):
    sshHostKeyVerificationStrategy: HostKeyStrategy


class ContentSecurityPolicy(Strict):
    enforce: Literal[True]


class Security(Strict):
    gitHostKeyVerificationConfiguration: HostKeyVerification
    contentSecurityPolicy: ContentSecurityPolicy


# pipeline-groovy-lib: LibraryConfiguration, SCMSourceRetriever, SCMBasedRetriever; git: GitSCMSource
class GitSource(Strict):
    id: Name
    remote: Name
    credentialsId: Name


class Scm(Strict):
    git: GitSource


class ModernScm(Strict):
    libraryPath: Name
    scm: Scm


class Retriever(Strict):
    modernSCM: ModernScm


class Library(Strict):
    name: Name
    implicit: Literal[True]
    allowVersionOverride: Literal[False]
    includeInChangesets: bool
    defaultVersion: Name
    retriever: Retriever


class Libraries(Strict):
    libraries: list[Library]


# core: JenkinsLocationConfiguration; lockable-resources; audit-trail: AuditTrailPlugin, LogFileAuditLogger
class Location(Strict):
    url: Name
    adminAddress: Name


class Resource(Strict):
    name: Name
    description: Name


class Resources(Strict):
    declaredResources: list[Resource]


class LogFile(Strict):
    log: Name
    limit: int
    count: int


class Logger(Strict):
    logFile: LogFile


class AuditTrail(Strict):
    logBuildCause: bool
    loggers: list[Logger]
    pattern: Name


class Unclassified(Strict):
    location: Location
    globalLibraries: Libraries
    lockableResourcesManager: Resources
    audit_trail: AuditTrail = Field(alias="audit-trail")


# job-dsl: casc/SeedJobConfigurator, casc/FromFileScriptSource
class Seed(Strict):
    file: Name


class Controller(Strict):
    jenkins: Core
    credentials: Credentials
    security: Security
    unclassified: Unclassified
    jobs: list[Seed]
