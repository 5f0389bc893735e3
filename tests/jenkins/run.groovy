/*
 * Runs a declarative Jenkinsfile without Jenkins: `groovy run.groovy JENKINSFILE PLAN.json…` writes what happened as JSON,
 * one report for each plan.
 *
 * The commands of `sh` are really run. Everything a build meets from outside comes from the plan: parameters, answers to
 * inputs, credentials, whether it is a pull request, the stage it was restarted from, newer builds that passed milestones.
 * The order inside a stage is that of Jenkins (pipeline-model-definition, ModelInterpreter.groovy): when beforeOptions,
 * options, when beforeInput, input, when beforeAgent, agent, when, environment, steps, post. Each time an agent is taken,
 * the workspace is a fresh checkout, so that whatever a stage needs of another is missed.
 *
 * What Jenkins knows and this does not (parallel, matrix, tools, stash, docker, `node`) ends the run with an error that
 * says so. The grammar is check.groovy's business: run that first. Written for Groovy 2.4, the version that Jenkins embeds.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.nio.file.Files
import java.nio.file.StandardCopyOption

/** A failure that ends a stage: a command that failed, an unknown step. */
class StepFailed extends RuntimeException { StepFailed(String message) { super(message) } }

/** An interruption: an input that was rejected or timed out, a milestone that a newer build passed. */
class Interrupted extends RuntimeException {
    final String result
    Interrupted(String result, String message) { super(message); this.result = result }
}

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

/** Collects the assignments of an `environment` block; `credentials` is looked up when it is reached. */
class EnvironmentBlock {
    final Build build
    final Map<String, String> values = [:]

    EnvironmentBlock(Build build) { this.build = build }
    void setProperty(String name, value) { this.@values[name] = String.valueOf(value) }
    String credentials(String id) { this.@build.credential(id) }
    List<Call> getCalls() { [] }
}

/** `env`: reads see what is bound around; writes are for the whole build, and for those restarted from it. */
class Env {
    final Build build

    Env(Build build) { this.build = build }
    def getProperty(String name) { this.@build.environment()[name] }
    void setProperty(String name, value) { this.@build.globals[name] = String.valueOf(value) }
}

class CurrentBuild {
    int number
    String displayName, description, result
    long startTimeInMillis

    String getCurrentResult() { result ?: 'SUCCESS' }
}

/** The steps that may stand in `steps` and `post`. */
class Steps {
    final Build build

    Steps(Build build) { this.build = build }

    void sh(String command) { build.shell(command) }
    def sh(Map named) {
        def code = build.shell(named.script, named.returnStatus as boolean)
        named.returnStatus ? code : null
    }
    void echo(String text) { build.log(text) }
    void error(String text) { throw new StepFailed(text) }
    void script(Closure body) { build.inside(body) }
    boolean fileExists(String path) { build.file(path).exists() }
    String readFile(String path) {
        if (!build.file(path).exists()) { throw new StepFailed("no such file: ${path}") }
        build.file(path).text
    }
    void archiveArtifacts(String pattern) { build.archive(pattern) }
    void archiveArtifacts(Map named) { build.archive(named.artifacts) }
    void junit(String pattern) { build.junit(pattern) }
    void milestone(int ordinal) { build.milestone(ordinal) }
    void milestone(Map named) { build.milestone(named.ordinal) }
    void timeout(Map named, Closure body) { build.inside(body) }
    void lock(Object which, Closure body) { build.locked(which, body) }
    def methodMissing(String name, args) { throw new StepFailed("No such DSL method '${name}' found among steps") }
}

class Build {
    static final POST = ['always', 'changed', 'fixed', 'regression', 'aborted', 'success', 'unsuccessful', 'unstable', 'failure', 'notBuilt', 'cleanup']
    static final UNSUPPORTED = ['parallel', 'matrix', 'tools', 'stages', 'libraries']

    final Map plan
    final Map<String, String> globals = [:]
    final List<Map<String, String>> layers = []
    final List<String> agents = []
    final List<Map> events = [], stages = []
    final Set<String> artifacts = new TreeSet<>()
    final List<String> secrets = []
    final CurrentBuild current
    Map params = [:]
    File workspace
    String stage = ''
    int checkouts = 0
    Throwable firstError

    Build(Map plan) {
        this.plan = plan
        current = new CurrentBuild(number: plan.number ?: 1, startTimeInMillis: plan.began ?: System.currentTimeMillis())
        current.displayName = "#${current.number}"
        globals.putAll(plan.restart?.environment ?: [:])
    }

    // --- what a build has around it ---

    Map<String, String> environment() {
        def given = [BUILD_NUMBER: "${current.number}", JOB_NAME: plan.job, JOB_BASE_NAME: plan.job.tokenize('/')[-1],
                     BUILD_URL: plan.url ?: "http://jenkins.example/job/${plan.job}/${current.number}/"]
        if (plan.change) { given.CHANGE_ID = "${plan.change}" }
        if (workspace) { given.WORKSPACE = workspace.path }
        def all = given + params.collectEntries { name, value -> [name, String.valueOf(value)] } + globals
        layers.each { all += it }
        all.collectEntries { name, value -> [String.valueOf(name), String.valueOf(value)] }
    }

    void event(Map about) { events << ([stage: stage] + about) }

    void log(String text) { new File(plan.work, 'log.txt') << secrets.inject(text) { shown, secret -> shown.replace(secret, '****') } + '\n' }

    String credential(String id) {
        if (!plan.credentials?.containsKey(id)) { throw new StepFailed("Could not find credentials entry with ID '${id}'") }
        if (!workspace) { throw new StepFailed("Attempted to bind the secret file '${id}' without an agent") }
        secrets << plan.credentials[id]
        event(kind: 'credential', id: id)
        plan.credentials[id]
    }

    File file(String path) {
        if (!workspace) { throw new StepFailed('Attempted to execute a step that requires a node context while `agent none` was specified') }
        new File(workspace, path)
    }

    void inside(Closure body) {
        body = body.clone()
        body.delegate = new Steps(this)
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
    }

    void within(Map<String, String> layer, Closure body) {
        layers << layer
        try { body() } finally { layers.pop() }
    }

    // --- steps ---

    int shell(String command, boolean tolerant = false) {
        file('.')
        def builder = new ProcessBuilder('/bin/sh', '-xe', '-c', command)
        builder.directory(workspace).redirectErrorStream(true)
        builder.environment().putAll((plan.variables ?: [:]) + environment())
        def process = builder.start()
        process.outputStream.close()
        log(process.inputStream.text)
        def code = process.waitFor()
        event(kind: 'sh', command: command.trim().replaceAll(/\s*\\?\n\s*/, ' '), code: code, agents: agents.clone())
        if (code != 0 && !tolerant) { throw new StepFailed("script returned exit code ${code}") }
        code
    }

    void archive(String pattern) {
        def matched = new FileNameFinder().getFileNames(file('.').path, pattern)
        if (!matched) { throw new StepFailed("No artifacts found that match the file pattern \"${pattern}\"") }
        def kept = new File(plan.work, 'artifacts')
        matched.each { path ->
            def name = workspace.toPath().toRealPath().relativize(new File(path).toPath().toRealPath()).toString()
            def target = new File(kept, name)
            target.parentFile.mkdirs()
            target.bytes = new File(path).bytes
            artifacts << name
        }
    }

    void junit(String pattern) {
        def matched = new FileNameFinder().getFileNames(file('.').path, pattern)
        if (!matched) { throw new StepFailed('No test report files were found. Configuration error?') }
        def cases = matched.collectMany { new XmlSlurper().parse(new File(it)).'**'.findAll { node -> node.name() == 'testcase' } }
        def failed = cases.findAll { it.failure.size() + it.error.size() > 0 }.size()
        event(kind: 'junit', tests: cases.size(), failed: failed)
        if (failed) { current.result = worse(current.result, 'UNSTABLE') }
    }

    /** A newer build that has passed this milestone, or a later one, ends this one: pipeline-milestone-step. */
    void milestone(int ordinal) {
        def newer = plan.milestones?.find { number, passed -> (number as int) > current.number && passed >= ordinal }
        event(kind: 'milestone', ordinal: ordinal, passed: newer == null)
        if (newer) { throw new Interrupted('NOT_BUILT', "Superseded by build #${newer.key}") }
    }

    void locked(which, Closure body) {
        def name = which instanceof Map ? which.resource : String.valueOf(which)
        event(kind: 'lock', name: name, agents: agents.clone())
        try { body() } finally { event(kind: 'unlock', name: name) }
    }

    // --- the order of things ---

    void run(Closure block) {
        def pipeline = Collector.sections(block)
        refuse(pipeline)
        params = declared(pipeline.parameters) + (plan.parameters ?: [:])
        def triggers = Collector.read(pipeline.triggers?.block).findAll { it.args != [''] }
        event(kind: 'triggers', names: triggers.collect { it.name })
        def skipping = plan.restart?.stage
        for (call in Collector.read(pipeline.stages.block)) {
            if (call.args[0] == skipping) { skipping = null }
            runStage(call.args[0], Collector.sections(call.block), skipping != null)
        }
        if (skipping != null) { throw new IllegalArgumentException("no stage '${skipping}' to restart from") }
        post(pipeline.post, '', firstError)
    }

    static void refuse(Map<String, Call> sections) {
        def found = (sections.keySet() - 'stages').find { it in UNSUPPORTED }
        if (found) { throw new UnsupportedOperationException("this program does not run `${found}`") }
    }

    static Map declared(Call section) {
        Collector.read(section?.block).collectEntries { call ->
            [call.named.name, call.named.containsKey('defaultValue') ? call.named.defaultValue : call.name == 'choice' ? call.named.choices[0] : '']
        }
    }

    void runStage(String name, Map<String, Call> sections, boolean before) {
        stage = name
        refuse(sections + [steps: null])
        def record = [name: name, status: 'SUCCESS']
        stages << record
        if (before || firstError) {
            record.status = before ? 'NOT_EXECUTED' : 'SKIPPED'
            return
        }
        try {
            if (!evaluate(sections)) { record.status = 'SKIPPED' }
            else if (current.result == 'UNSTABLE') { record.status = 'UNSTABLE' }
        } catch (StepFailed | Interrupted error) {
            log(error.message)
            firstError = error
            record.status = error instanceof Interrupted ? error.result : 'FAILURE'
            record.error = error.message
        }
    }

    /** True when the stage's steps ran, false when a condition left it out. */
    boolean evaluate(Map<String, Call> sections) {
        def condition = new Conditions(this, sections.when)
        def ran = false
        if (!condition.holdsBefore('beforeOptions')) { return false }
        wrapped(Collector.read(sections.options?.block)) {
            if (condition.holdsBefore('beforeInput')) {
                answered(sections.input, sections.options) {
                    if (condition.holdsBefore('beforeAgent')) {
                        onAgent(sections.agent) {
                            if (condition.holds()) {
                                ran = true
                                within(bound(sections.environment)) { steps(sections) }
                            }
                        }
                    }
                }
            }
        }
        ran
    }

    void wrapped(List<Call> options, Closure body) {
        if (options.isEmpty()) { body(); return }
        def inner = { wrapped(options.tail(), body) }
        def option = options.head()
        if (option.name == 'lock') { locked(option.named ?: option.args[0], inner) } else { inner() }
    }

    void answered(Call input, Call options, Closure body) {
        if (input == null) { body(); return }
        def fields = Collector.sections(input.block)
        def id = fields.id.args[0]
        event(kind: 'input', id: id, agents: agents.clone(), locks: held(), submitter: fields.submitter?.args?.getAt(0))
        def answer = plan.answers?.get(id)
        if (answer == null) { throw new IllegalStateException("the plan has no answer to '${id}': the build would wait") }
        if (answer.act == 'timeout') {
            def limited = Collector.read(options?.block).any { it.name == 'timeout' }
            if (!limited) { throw new IllegalStateException("'${id}' has no limit: the build would wait for ever") }
            throw new Interrupted('ABORTED', 'Timeout has been exceeded')
        }
        if (answer.act == 'superseded') { throw new Interrupted('NOT_BUILT', "Superseded by build #${current.number + 1}") }
        if (answer.act == 'abort') { throw new Interrupted('ABORTED', "Rejected by ${answer.user}") }
        def layer = declared(fields.parameters).keySet().collectEntries { [it, answer.parameters?.get(it)] }
        if (fields.submitterParameter) { layer[fields.submitterParameter.args[0]] = answer.user }
        within(layer, body)
    }

    List<String> held() {
        def names = []
        events.each { if (it.kind == 'lock') { names << it.name } else if (it.kind == 'unlock') { names.remove(it.name) } }
        names
    }

    void onAgent(Call agent, Closure body) {
        if (agent == null || agent.args == ['none']) { body(); return }
        def label = agent.block ? Collector.read(agent.block)[0].args[0] : 'any'
        def outer = workspace
        workspace = new File(plan.work, "workspace-${++checkouts}")
        checkOut(new File(plan.checkout), workspace)
        agents << label
        event(kind: 'agent', label: label)
        try { body() } finally { agents.pop(); workspace = outer }
    }

    static void checkOut(File from, File to) {
        if (from.directory) {
            to.mkdirs()
            from.listFiles().each { checkOut(it, new File(to, it.name)) }
        } else {
            Files.copy(from.toPath(), to.toPath(), StandardCopyOption.COPY_ATTRIBUTES)
        }
    }

    Map<String, String> bound(Call section) {
        def block = new EnvironmentBlock(this)
        Collector.read(section?.block, block)
        block.@values
    }

    void steps(Map<String, Call> sections) {
        Throwable error = null
        try { inside(sections.steps.block) } catch (StepFailed | Interrupted caught) { error = caught }
        error = post(sections.post, stage, error)
        if (error) { throw error }
    }

    // --- what comes after ---

    Throwable post(Call section, String where, Throwable error) {
        def blocks = Collector.sections(section?.block)
        for (condition in POST) {
            if (!blocks[condition] || !(condition in satisfied(error))) { continue }
            event(kind: 'post', condition: condition, of: where)
            try { inside(blocks[condition].block) } catch (StepFailed | Interrupted caught) {
                log("Error when executing ${condition} post condition: ${caught.message}")
                error = error ?: caught
            }
        }
        firstError = where ? firstError : (firstError ?: error)
        error
    }

    Set<String> satisfied(Throwable error) {
        def result = worse(current.result, resultOf(error))
        def names = ['always', 'cleanup', [SUCCESS: 'success', UNSTABLE: 'unstable', FAILURE: 'failure', ABORTED: 'aborted', NOT_BUILT: 'notBuilt'][result]] as Set
        if (result != 'SUCCESS') { names << 'unsuccessful' }
        if (plan.previous && plan.previous != result) { names << 'changed' }
        if (result == 'SUCCESS' && plan.previous in ['FAILURE', 'UNSTABLE']) { names << 'fixed' }
        if (plan.previous && rank(result) > rank(plan.previous)) { names << 'regression' }
        names
    }

    static String resultOf(Throwable error) { error == null ? 'SUCCESS' : error instanceof Interrupted ? error.result : 'FAILURE' }
    static int rank(String result) { ['SUCCESS', 'UNSTABLE', 'FAILURE', 'NOT_BUILT', 'ABORTED'].indexOf(result ?: 'SUCCESS') }
    static String worse(String one, String other) { rank(one) >= rank(other) ? (one ?: 'SUCCESS') : other }

    Map report() {
        [result: worse(current.result, resultOf(firstError)), error: firstError?.message, stages: stages, events: events, environment: globals,
         displayName: current.displayName, description: current.description, artifacts: artifacts, parameters: params]
    }
}

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
            case 'expression': return call.block() as boolean
        }
        throw new UnsupportedOperationException("this program does not judge `${call.name}`")
    }
}

Map runPlan(File jenkinsfile, Map plan) {
    new File(plan.work).mkdirs()
    def build = new Build(plan)
    def binding = new Binding(env: new Env(build), currentBuild: build.current)
    binding.setVariable('pipeline') { Closure block -> build.run(block) }
    // A view, because the parameters are known only when their section was read.
    binding.setVariable('params', new AbstractMap<String, Object>() {
        Object get(Object name) { build.params[name] }
        Set<Map.Entry<String, Object>> entrySet() { build.params.entrySet() }
    })
    try {
        new GroovyShell(this.class.classLoader, binding).parse(jenkinsfile).run()
        build.report()
    } catch (UnsupportedOperationException | IllegalStateException | IllegalArgumentException problem) {
        [problem: problem.message]
    }
}

println JsonOutput.toJson(args.tail().collect { runPlan(new File(args[0]), new JsonSlurper().parse(new File(it))) })
