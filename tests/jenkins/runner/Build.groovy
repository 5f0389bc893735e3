package runner

import java.nio.file.Files
import java.nio.file.StandardCopyOption

/** One build: what is bound around it, its steps, and the order in which Jenkins takes a stage's sections. */
class Build {
    static final POST = ['always', 'changed', 'fixed', 'regression', 'aborted', 'success', 'unsuccessful', 'unstable', 'failure', 'notBuilt', 'cleanup']
    static final UNSUPPORTED = ['parallel', 'matrix', 'tools', 'stages', 'libraries']

    final Map plan
    final Outside outside
    final Map<String, String> globals = [:]
    final List<Map<String, String>> layers = []
    final List<String> agents = []
    final List<Map> events = [], stages = []
    final Set<String> artifacts = new TreeSet<>()
    final List<String> secrets = []
    final CurrentBuild current
    Map params = [:]
    Binding binding
    File workspace
    String stage = ''
    int checkouts = 0
    Throwable firstError

    Build(Map plan, Outside outside) {
        this.plan = plan
        this.outside = outside
        current = new CurrentBuild(outside, plan)
        globals.putAll(plan.restart?.environment ?: [:])
    }

    // --- what a build has around it ---

    Map<String, String> environment() {
        def given = [BUILD_NUMBER: "${current.number}", JOB_NAME: plan.job, JOB_BASE_NAME: plan.job.tokenize('/')[-1],
                     BUILD_URL: plan.url ?: "http://jenkins.example/job/${plan.job}/${current.number}/"]
        given += [JOB_URL: given.BUILD_URL.replaceFirst(/\d+\/$/, ''), STAGE_NAME: stage]
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

    /** Runs a command in a process group of its own, so that whoever stops the build ends all of it. */
    def shell(Map named) {
        file('.')
        heed()
        def builder = new ProcessBuilder('setsid', '/bin/sh', '-xe', '-c', named.script)
        builder.directory(workspace).redirectErrorStream(!named.returnStdout)
        if (named.returnStdout) { builder.redirectError(ProcessBuilder.Redirect.appendTo(new File(plan.work, 'log.txt'))) }
        builder.environment().putAll((plan.variables ?: [:]) + environment())
        def process = builder.start()
        process.outputStream.close()
        outside.running(process.pid())
        def said = new StringBuilder()
        process.inputStream.eachLine { named.returnStdout ? said.append(it).append('\n') : log(it) }
        def code = process.waitFor()
        outside.running(null)
        event(kind: 'sh', command: named.script.trim().replaceAll(/\s*\\?\n\s*/, ' '), code: code, agents: agents.clone())
        heed()
        if (code != 0 && !named.returnStatus) { throw new StepFailed("script returned exit code ${code}") }
        named.returnStatus ? code : named.returnStdout ? said.toString() : null
    }

    /** Ends here when somebody has stopped the build. */
    void heed() {
        def why = outside.interruption()
        if (why != null) { throw why }
    }

    void worsen(String result) { current.result = worse(current.result, result) }

    /** A step of the shared library: `vars/NAME.groovy` with a method `call`, which sees what a Jenkinsfile sees. */
    def libraryStep(String name, Object[] given) {
        def file = plan.library ? new File(plan.library, "vars/${name}.groovy") : null
        if (!file?.exists()) { throw new StepFailed("No such DSL method '${name}' found among steps") }
        def script = new GroovyShell(this.class.classLoader, binding).parse(file)
        script.metaClass.methodMissing = { String step, args -> new Steps(this).invokeMethod(step, args) }
        script.call(*given)
    }

    void archive(String pattern, boolean mayBeEmpty = false) {
        def matched = pattern.tokenize(', ').collectMany { new FileNameFinder().getFileNames(file('.').path, it) }
        if (!matched && !mayBeEmpty) { throw new StepFailed("No artifacts found that match the file pattern \"${pattern}\"") }
        def kept = new File(plan.work, 'artifacts')
        matched.each { path ->
            def name = workspace.toPath().toRealPath().relativize(new File(path).toPath().toRealPath()).toString()
            def target = new File(kept, name)
            target.parentFile.mkdirs()
            target.bytes = new File(path).bytes
            artifacts << name
        }
    }

    void junit(String pattern, boolean mayBeEmpty = false) {
        def matched = new FileNameFinder().getFileNames(file('.').path, pattern)
        if (!matched && mayBeEmpty) { return }
        if (!matched) { throw new StepFailed('No test report files were found. Configuration error?') }
        def cases = matched.collectMany { new XmlSlurper().parse(new File(it)).'**'.findAll { node -> node.name() == 'testcase' } }
        def failed = cases.findAll { it.failure.size() + it.error.size() > 0 }.size()
        event(kind: 'junit', tests: cases.size(), failed: failed)
        if (failed) { worsen('UNSTABLE') }
    }

    /** A newer build that has passed this milestone, or a later one, ends this one: pipeline-milestone-step. */
    void milestone(int ordinal) {
        def newer = outside.newerPast(ordinal, current.number)
        event(kind: 'milestone', ordinal: ordinal, passed: newer == null)
        if (newer) { throw new Interrupted('NOT_BUILT', "Superseded by build #${newer}") }
    }

    void locked(which, Closure body) {
        def name = which instanceof Map ? which.resource : String.valueOf(which)
        outside.acquire('lock', name)
        event(kind: 'lock', name: name, agents: agents.clone())
        try { body() } finally {
            event(kind: 'unlock', name: name)
            outside.release('lock', name)
        }
    }

    // --- the order of things ---

    void run(Closure block) {
        def pipeline = Collector.sections(block)
        refuse(pipeline)
        params = declared(pipeline.parameters) + (plan.parameters ?: [:])
        def triggers = Collector.read(pipeline.triggers?.block).findAll { it.args != [''] && it.named.upstreamProjects != '' }
        event(kind: 'triggers', names: triggers.collect { it.name })
        outside.declared(parametersOf(pipeline.parameters), triggers.collect { [name: it.name, named: it.named, args: it.args] },
                         Collector.read(pipeline.options?.block).collect { it.name })
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

    /** By name: kind, choices and default of each parameter. */
    static Map parametersOf(Call section) {
        def defaults = declared(section)
        Collector.read(section?.block).collectEntries { call ->
            [call.named.name, [kind: call.name, choices: call.named.choices, default: defaults[call.named.name], description: call.named.description]]
        }
    }

    void runStage(String name, Map<String, Call> sections, boolean before) {
        stage = name
        refuse(sections + [steps: null])
        def record = [name: name, status: 'SUCCESS']
        stages << record
        outside.stage(name, 'IN_PROGRESS')
        try { runIn(record, sections, before) } finally { outside.stage(name, record.status) }
    }

    void runIn(Map record, Map<String, Call> sections, boolean before) {
        if (before || firstError) {
            record.status = before ? 'NOT_EXECUTED' : 'SKIPPED_FOR_FAILURE'
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
        def answer = outside.answer([id: id, message: fields.message.args[0], ok: fields.ok?.args?.getAt(0), submitter: fields.submitter?.args?.getAt(0),
                                     submitterParameter: fields.submitterParameter?.args?.getAt(0), parameters: parametersOf(fields.parameters)])
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
        outside.acquire('agent', label)
        try {
            workspace = new File(plan.work, "workspace-${++checkouts}")
            checkOut(new File(plan.checkout), workspace)
            agents << label
            event(kind: 'agent', label: label)
            try { body() } finally { agents.pop() }
        } finally {
            if (plan.tidy) { ['rm', '-rf', '--', workspace.path].execute().waitFor() } // deleteDir would follow links
            workspace = outer
            outside.release('agent', label)
        }
    }

    /** A fresh checkout: by git where the source is a repository, as a copy where it is a folder. */
    static void checkOut(File from, File to) {
        if (new File(from, '.git').exists()) {
            def cloned = ['git', 'clone', '--quiet', '--shared', from.path, to.path].execute()
            if (cloned.waitFor() != 0) { throw new StepFailed("checkout failed: ${cloned.err.text}") }
        } else if (from.directory) {
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
