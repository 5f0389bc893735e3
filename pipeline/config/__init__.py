"""Configuration: the installation's settings and one model's project. Frozen, strict, loaded explicitly.

Nothing is read from the environment here.
"""

from pipeline.config.project import PROJECT_FILE as PROJECT_FILE
from pipeline.config.project import Project as Project
from pipeline.config.project import ProjectSettings as ProjectSettings
from pipeline.config.project import load_policy as load_policy
from pipeline.config.project import load_project as load_project
from pipeline.config.project import project_from_files as project_from_files
from pipeline.config.settings import DvcSettings as DvcSettings
from pipeline.config.settings import ForgeSettings as ForgeSettings
from pipeline.config.settings import GithubSettings as GithubSettings
from pipeline.config.settings import JenkinsSettings as JenkinsSettings
from pipeline.config.settings import Settings as Settings
from pipeline.config.settings import SigningSettings as SigningSettings
from pipeline.config.settings import load_settings as load_settings
