package runner

/** The steps that may stand in `steps`, `post` and `script`. What it does not know is looked for in the shared library. */
class Steps {
    final Build build

    Steps(Build build) { this.build = build }

    void sh(String command) { build.shell([script: command]) }
    def sh(Map named) { build.shell(named) }
    void echo(String text) { build.log(text) }
    void error(String text) { throw new StepFailed(text) }
    void unstable(String text) { build.log("WARNING: ${text}"); build.worsen('UNSTABLE') }
    void script(Closure body) { build.inside(body) }
    boolean fileExists(String path) { build.file(path).exists() }
    String readFile(String path) {
        if (!build.file(path).exists()) { throw new StepFailed("no such file: ${path}") }
        build.file(path).text
    }
    void archiveArtifacts(String pattern) { build.archive(pattern) }
    void archiveArtifacts(Map named) { build.archive(named.artifacts, named.allowEmptyArchive as boolean) }
    void junit(String pattern) { build.junit(pattern) }
    void junit(Map named) { build.junit(named.testResults, named.allowEmptyResults as boolean) }
    void milestone(int ordinal) { build.milestone(ordinal) }
    void milestone(Map named) { build.milestone(named.ordinal) }
    void timeout(Map named, Closure body) { build.inside(body) }
    void lock(Object which, Closure body) { build.locked(which, body) }
    def methodMissing(String name, args) { build.libraryStep(name, args as Object[]) }
}
