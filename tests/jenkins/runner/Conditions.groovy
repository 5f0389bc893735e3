package runner

/** A stage's `when`: looked at once, at the time it asks for. */
class Conditions {
    final Build build
    final List<Call> calls
    Boolean verdict

    Conditions(Build build, Call section) { this.build = build; calls = Collector.read(section?.block) }

    boolean asks(String order) { calls.any { it.name == order && it.args == [true] } }
    boolean holdsBefore(String order) { verdict != null ? verdict : asks(order) ? holds() : true }
    boolean holds() {
        if (verdict == null) { verdict = calls.findAll { !it.name.startsWith('before') }.every { holds(it) } }
        verdict
    }

    boolean holds(Call call) {
        switch (call.name) {
            case 'not': return !holds(Collector.read(call.block)[0])
            case 'allOf': return Collector.read(call.block).every { holds(it) }
            case 'anyOf': return Collector.read(call.block).any { holds(it) }
            case 'changeRequest': return build.plan.change != null
            case 'branch': return build.plan.branch == call.args[0]
            case 'isRestartedRun': return build.plan.restart != null
            case 'equalTo': return call.named.expected == call.named.actual
            case 'environment': return build.environment()[call.named.name] == call.named.value
            case 'expression': return call.block() as boolean
        }
        throw new UnsupportedOperationException("this program does not judge `${call.name}`")
    }
}
