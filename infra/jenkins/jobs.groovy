// All jobs, for the plugin job-dsl; jenkins.yaml runs this at every start. Not yet run by a controller.
// The environment is at hand as variables: the plugin binds the controller's own to a script that jenkins.yaml names.
def repository = binding.hasVariable('GATEHOUSE_REPOSITORY') ? GATEHOUSE_REPOSITORY : 'ssh://git@git.corp.example/ml/gatehouse.git'

// One file of the repository, always as it stands on the branch `main`.
def fileOnMain = { String path ->
    return {
        cpsScm {
            scm {
                git {
                    remote {
                        url(repository)
                        credentials('git-ssh')
                    }
                    branch('main')
                }
            }
            scriptPath(path)
        }
    }
}

// Parameters and triggers below repeat those of the files: Jenkins learns a file's own from a build, and this text
// is written over them at every start. Without them nobody could decide, and nothing would run by the clock, until then.

folder('mlops') {
    displayName('Models')
    description('From data to production. Trainers start builds here.')
}

// A multibranch job checks every stage of a build out at the same commit, also that of a restarted one.
multibranchPipelineJob('mlops/flights') {
    description('Trains the flights model and takes it to production, through the gate. infra/jenkins/README.md says how.')
    branchSources {
        git {
            id('gatehouse-flights') // never changes: Jenkins tells branches apart by it
            remote(repository)
            credentialsId('git-ssh')
            includes('main') // any other branch would come to the gate too
        }
    }
    factory {
        workflowBranchProjectFactory {
            scriptPath('Jenkinsfile')
        }
    }
    triggers {
        periodicFolderTrigger {
            interval('15m') // a push is seen after a quarter of an hour, without a webhook from the git server
        }
    }
    orphanedItemStrategy {
        discardOldItems {
            numToKeep(20)
        }
    }
}

// Apart, because starting its job is deciding: only approvers may.
folder('approvals') {
    displayName('Approvals')
    description('Approvers decide here. Whoever starts a build is the one who decided.')
}

pipelineJob('approvals/decide') {
    description('Records a decision on a run that waits at the gate.')
    parameters {
        stringParam('RUN', '', 'The run that waits.')
        choiceParam('DECISION', ['undecided', 'approve', 'reject'], 'A rejection is final for this model.')
        stringParam('WHY', '', 'The reason; it is recorded with your name.')
    }
    definition(fileOnMain('infra/jenkins/approval.Jenkinsfile'))
}

// The operators' own folder: trainers see neither its jobs nor its builds.
folder('operations') {
    displayName('Operations')
    description('Production, by the clock and by hand. Operators only.')
}

pipelineJob('operations/production') {
    description('Reconciles every ten minutes; rollback, verification of the ledger and history by hand.')
    parameters {
        choiceParam('ACTION', ['reconcile', 'rollback', 'verify', 'history'], 'What to do.')
        stringParam('REASON', '', 'For a rollback: why. It is recorded.')
    }
    properties {
        pipelineTriggers {
            triggers {
                cron {
                    spec('H/10 * * * *')
                }
            }
        }
    }
    definition(fileOnMain('infra/jenkins/operations.Jenkinsfile'))
}

pipelineJob('operations/monitoring') {
    description('Watches the live model; asks for a new one where it drifts.')
    parameters {
        stringParam('WINDOW', '', 'Months or days, 2013-08..2013-09. Empty: the last whole month.')
    }
    properties {
        pipelineTriggers {
            triggers {
                cron {
                    spec('H 5 * * *')
                }
            }
        }
    }
    definition(fileOnMain('infra/jenkins/monitoring.Jenkinsfile'))
}
