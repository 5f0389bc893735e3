// All jobs, for the plugin job-dsl; jenkins.yaml runs this at every start. Not yet run by a controller.
// A multibranch job checks every stage of a build out at the same commit, also that of a restarted one.

folder('mlops') {
    displayName('Models')
}

multibranchPipelineJob('mlops/flights') {
    description('Trains the flights model and takes it to production, through the gate. infra/jenkins/README.md says how.')
    branchSources {
        git {
            id('gatehouse-flights') // never changes: Jenkins tells branches apart by it
            remote('ssh://git@git.corp.example/ml/gatehouse.git')
            credentialsId('git-ssh')
            includes('main') // any other branch would come to the gate too
        }
    }
    factory {
        workflowBranchProjectFactory {
            scriptPath('Jenkinsfile')
        }
    }
    orphanedItemStrategy {
        discardOldItems {
            numToKeep(20)
        }
    }
}

// The operators' own folder: trainers see neither its jobs nor its builds.
folder('operations') {
    displayName('Operations')
}

pipelineJob('operations/production') {
    description('Reconciles every ten minutes; rollback, verification of the ledger and history by hand.')
    definition {
        cpsScm {
            scm {
                git {
                    remote {
                        url('ssh://git@git.corp.example/ml/gatehouse.git')
                        credentials('git-ssh')
                    }
                    branch('main')
                }
            }
            scriptPath('infra/jenkins/operations.Jenkinsfile')
        }
    }
}
