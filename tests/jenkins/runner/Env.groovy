package runner

/** `env`: reads see what is bound around; writes are for the whole build, and for those restarted from it. */
class Env {
    final Build build

    Env(Build build) { this.build = build }
    def getProperty(String name) { this.@build.environment()[name] }
    void setProperty(String name, value) { this.@build.globals[name] = String.valueOf(value) }
}
