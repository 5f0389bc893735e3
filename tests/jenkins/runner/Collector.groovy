package runner

/** Collects the calls of a block, without a meaning of its own. */
class Collector {
    final List<Call> calls = []

    def methodMissing(String name, args) { def call = Call.of(name, args as Object[]); calls << call; call }
    String getNone() { 'none' }
    String getAny() { 'any' }

    static List<Call> read(Closure block, delegate = new Collector()) {
        if (block == null) { return [] }
        block = block.clone()
        block.delegate = delegate
        block.resolveStrategy = Closure.DELEGATE_FIRST
        block()
        delegate.calls
    }

    static Map<String, Call> sections(Closure block) { read(block).collectEntries { [it.name, it] } }
}
