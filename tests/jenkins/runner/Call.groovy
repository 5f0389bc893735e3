package runner

/** A name with its arguments and its block, as it stands in a Jenkinsfile. */
class Call {
    String name
    List args
    Map named = [:]
    Closure block

    static Call of(String name, Object[] given) {
        def call = new Call(name: name, args: given.toList())
        if (call.args && call.args[-1] instanceof Closure) { call.block = call.args.pop() }
        if (call.args && call.args[0] instanceof Map) { call.named = call.args.remove(0) }
        call
    }
}
