package runner

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.util.concurrent.LinkedBlockingQueue

/**
 * What a build meets from outside, as a controller at the other end of two pipes tells it, a line of JSON at a time.
 * Asks are answered in turn; a stop may come at any time, and ends what runs.
 */
class Wire extends Outside {
    private final PrintStream to
    private final LinkedBlockingQueue<Map> replies = new LinkedBlockingQueue<>()
    private Interrupted stopped
    private Long pid

    Wire(Map plan, InputStream from, PrintStream to) {
        super(plan)
        this.to = to
        Thread.startDaemon {
            from.eachLine { line ->
                def said = new JsonSlurper().parseText(line)
                if (said.stop) { stop(new Interrupted(said.stop.result, said.stop.message)) }
                else { replies.put(said) }
            }
            stop(new Interrupted('ABORTED', 'the controller is gone'))
        }
    }

    private synchronized void stop(Interrupted why) {
        stopped = stopped ?: why
        if (pid != null) { new ProcessBuilder('kill', '-TERM', '--', "-${pid}").start().waitFor() }
        replies.put([act: 'stopped'])
    }

    synchronized void running(Long pid) {
        this.pid = pid
        if (pid != null && stopped != null) { stop(stopped) }
        say([say: 'running', pid: pid])
    }

    synchronized Interrupted interruption() {
        def found = stopped
        if (found != null) {
            stopped = null
            replies.clear()
        }
        found
    }

    synchronized void say(Map what) { to.println(JsonOutput.toJson(what)); to.flush() }

    private Map ask(Map what) {
        say(what)
        def reply = replies.take()
        def why = interruption()
        if (why != null) { throw why }
        reply
    }

    Map answer(Map asked) { ask([ask: 'input'] + asked) }
    Object newerPast(int ordinal, int number) { ask([ask: 'milestone', ordinal: ordinal]).newer }
    void acquire(String kind, String name) { ask([ask: kind, name: name]) }
    void release(String kind, String name) { say([say: 'released', kind: kind, name: name]) }
    void declared(Map parameters, List triggers, List options) { say([say: 'declared', parameters: parameters, triggers: triggers, options: options]) }
    void stage(String name, String status) { say([say: 'stage', name: name, status: status]) }
    void shown(String displayName, String description) { say([say: 'shown', displayName: displayName, description: description]) }
}
