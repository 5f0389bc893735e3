/**
 * Writes model, version, verdict and the ledger's head into the build's description, so that people see where a run stands
 * and the build record is an anchor of the ledger. `more` is added as it is.
 */
def call(String more = '') {
    def line = sh(script: '.venv/bin/python -m pipeline gate show --run "$GATEHOUSE_RUN" --only line', returnStdout: true)
    currentBuild.description = line.trim() + more
}
