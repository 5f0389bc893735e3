package runner

/** Collects the assignments of an `environment` block; `credentials` is looked up when it is reached. */
class EnvironmentBlock {
    final Build build
    final Map<String, String> values = [:]

    EnvironmentBlock(Build build) { this.build = build }
    void setProperty(String name, value) { this.@values[name] = String.valueOf(value) }
    String credentials(String id) { this.@build.credential(id) }
    List<Call> getCalls() { [] }
}
