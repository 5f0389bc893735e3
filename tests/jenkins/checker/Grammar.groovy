/** The words of declarative pipelines, as their public documentation gives them. */
class Grammar {
    static final PIPELINE = ['agent', 'stages', 'environment', 'post', 'tools', 'options', 'parameters', 'triggers', 'libraries']
    static final STAGE = ['agent', 'when', 'steps', 'stages', 'parallel', 'matrix', 'post', 'options', 'input', 'tools', 'environment', 'failFast']
    static final MATRIX = ['axes', 'excludes', 'stages', 'agent', 'when', 'post', 'options', 'input', 'tools', 'environment']
    static final BODIES = ['steps', 'stages', 'parallel', 'matrix']
    static final INPUT = ['message', 'id', 'ok', 'submitter', 'submitterParameter', 'parameters']
    static final WHEN = ['allOf', 'anyOf', 'not', 'branch', 'buildingTag', 'changelog', 'changeRequest', 'changeset', 'environment',
                         'equals', 'expression', 'isRestartedRun', 'tag', 'triggeredBy']
    static final WHEN_NESTING = ['allOf', 'anyOf', 'not']
    static final WHEN_ORDER = ['beforeAgent', 'beforeInput', 'beforeOptions']
    static final POST = ['always', 'changed', 'fixed', 'regression', 'aborted', 'success', 'unsuccessful', 'unstable', 'failure',
                         'notBuilt', 'cleanup']
    static final AGENTS = ['any', 'none', 'label', 'node', 'docker', 'dockerfile', 'kubernetes']
    static final PARAMETERS = ['booleanParam', 'choice', 'credentials', 'file', 'password', 'run', 'string', 'text']
    static final TRIGGERS = ['cron', 'pollSCM', 'upstream', 'GenericTrigger']
    static final WRAPPERS = ['timeout', 'retry', 'timestamps', 'lock', 'withCredentials', 'withEnv', 'ansiColor', 'throttle', 'catchError', 'warnError']
    static final STAGE_OPTIONS = WRAPPERS + ['skipDefaultCheckout']
    static final OPTIONS = STAGE_OPTIONS + ['buildDiscarder', 'checkoutToSubdirectory', 'disableConcurrentBuilds', 'disableRestartFromStage',
                                            'disableResume', 'durabilityHint', 'newContainerPerStage', 'overrideIndexTriggers',
                                            'parallelsAlwaysFailFast', 'preserveStashes', 'quietPeriod', 'rateLimitBuilds',
                                            'skipStagesAfterUnstable']
    static final BLOCKED_STEPS = ['stage', 'parallel', 'properties', 'pipeline']
    static final STEPS = ['sh', 'echo', 'error', 'script', 'milestone', 'junit', 'archiveArtifacts', 'publishHTML', 'timeout', 'retry', 'dir',
                          'withEnv', 'withCredentials', 'lock', 'unstable', 'catchError', 'warnError', 'node', 'cleanWs', 'checkout', 'build',
                          'sleep', 'writeFile', 'readFile', 'fileExists', 'stash', 'unstash', 'input', 'deleteDir', 'waitUntil', 'tool', 'mail']
    /** Steps of the shared library, infra/jenkins/library/vars. */
    static final LIBRARY = ['gatehouse', 'showVerdict']
    /** Steps that run a command. */
    static final SHELLS = ['sh', 'gatehouse']
    /** What Jenkins itself puts into a build's environment. */
    static final GIVEN = ['BUILD_URL', 'BUILD_NUMBER', 'BUILD_TAG', 'JOB_NAME', 'JOB_BASE_NAME', 'JOB_URL', 'WORKSPACE', 'WORKSPACE_TMP', 'NODE_NAME',
                          'EXECUTOR_NUMBER', 'STAGE_NAME', 'JENKINS_URL', 'BRANCH_NAME', 'CHANGE_ID', 'CHANGE_TARGET', 'GIT_COMMIT', 'HOME', 'PATH']
}
