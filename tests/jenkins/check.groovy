/*
 * Static checker of declarative Jenkinsfiles: `groovy check.groovy FILE…` writes one JSON list of {file, line, rule, message}.
 *
 * It reads the syntax tree as it stands after conversion (nothing is run, no name is resolved), which is the tree that
 * Jenkins' own declarative parser reads. Two families of rules: the grammar of declarative pipelines, as its public
 * documentation gives it, and the rules of a gate, whose reasons stand in infra/jenkins/README.md. Written for Groovy
 * 2.4, the version that Jenkins embeds.
 */
import groovy.json.JsonOutput
import org.codehaus.groovy.ast.ASTNode
import org.codehaus.groovy.ast.CodeVisitorSupport
import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.MultipleCompilationErrorsException
import org.codehaus.groovy.control.Phases

class Grammar {
    static final PIPELINE = ['agent', 'stages', 'environment', 'post', 'tools', 'options', 'parameters', 'triggers', 'libraries']
    static final STAGE = ['agent', 'when', 'steps', 'stages', 'parallel', 'matrix', 'post', 'options', 'input', 'tools', 'environment', 'failFast']
    static final MATRIX = ['axes', 'excludes', 'stages', 'agent', 'when', 'post', 'options', 'input', 'tools', 'environment']
    static final BODIES = ['steps', 'stages', 'parallel', 'matrix']
    static final INPUT = ['message', 'id', 'ok', 'submitter', 'submitterParameter', 'parameters']
    static final WHEN = ['allOf', 'anyOf', 'not', 'branch', 'buildingTag', 'changelog', 'changeRequest', 'changeset', 'environment',
                         'equals', 'expression', 'isRestartedRun', 'tag', 'triggeredBy']
    static final WHEN_NESTING = ['allOf', 'anyOf', 'not']
    static final WHEN_ORDER = ['beforeAgent', 'beforeInput', 'beforeOptions']
    static final POST = ['always', 'changed', 'fixed', 'regression', 'aborted', 'success', 'unsuccessful', 'unstable', 'failure',
                         'notBuilt', 'cleanup']
    static final AGENTS = ['any', 'none', 'label', 'node', 'docker', 'dockerfile', 'kubernetes']
    static final PARAMETERS = ['booleanParam', 'choice', 'credentials', 'file', 'password', 'run', 'string', 'text']
    static final TRIGGERS = ['cron', 'pollSCM', 'upstream', 'GenericTrigger']
    static final WRAPPERS = ['timeout', 'retry', 'timestamps', 'lock', 'withCredentials', 'withEnv', 'ansiColor', 'throttle', 'catchError', 'warnError']
    static final STAGE_OPTIONS = WRAPPERS + ['skipDefaultCheckout']
    static final OPTIONS = STAGE_OPTIONS + ['buildDiscarder', 'checkoutToSubdirectory', 'disableConcurrentBuilds', 'disableRestartFromStage',
                                            'disableResume', 'durabilityHint', 'newContainerPerStage', 'overrideIndexTriggers',
                                            'parallelsAlwaysFailFast', 'preserveStashes', 'quietPeriod', 'rateLimitBuilds',
                                            'skipStagesAfterUnstable']
    static final BLOCKED_STEPS = ['stage', 'parallel', 'properties', 'pipeline']
    static final STEPS = ['sh', 'echo', 'error', 'script', 'milestone', 'junit', 'archiveArtifacts', 'publishHTML', 'timeout', 'retry', 'dir',
                          'withEnv', 'withCredentials', 'lock', 'unstable', 'catchError', 'warnError', 'node', 'cleanWs', 'checkout', 'build',
                          'sleep', 'writeFile', 'readFile', 'fileExists', 'stash', 'unstash', 'input', 'deleteDir', 'waitUntil', 'tool', 'mail']
    /** What Jenkins itself puts into a build's environment. */
    static final GIVEN = ['BUILD_URL', 'BUILD_NUMBER', 'BUILD_TAG', 'JOB_NAME', 'JOB_BASE_NAME', 'JOB_URL', 'WORKSPACE', 'WORKSPACE_TMP', 'NODE_NAME',
                          'EXECUTOR_NUMBER', 'STAGE_NAME', 'JENKINS_URL', 'BRANCH_NAME', 'CHANGE_ID', 'CHANGE_TARGET', 'GIT_COMMIT', 'HOME', 'PATH']
}

/** A call in a block: its name, its arguments and, if it has one, its block. */
class Call {
    String name
    ASTNode node
    List<Expression> args = []
    Map<String, Expression> named = [:]
    List<Statement> block

    int getLine() { node.lineNumber }
    String text(int at = 0) { args.size() > at && args[at] instanceof ConstantExpression ? String.valueOf(args[at].value) : null }
    String text(String key) { named[key] instanceof ConstantExpression ? String.valueOf(named[key].value) : null }
}

/** A stage with what lies around it, from the outermost inwards. */
class Stage {
    String name
    Call call
    Map<String, Call> sections = [:]
    List<Stage> around = []

    int getLine() { call.line }
    boolean getTop() { around.isEmpty() }
    Set<String> getOptions() { names('options') }
    Set<String> names(String section) { Checker.calls(sections[section]).collect { it.name } as Set }
}

class Checker {
    final String file
    final List<Map> found = []
    final List<Stage> stages = []
    Map<String, Call> top = [:]

    Checker(String file) { this.file = file }

    void report(int line, String rule, String message) { found << [file: file, line: line, rule: rule, message: message] }

    // --- reading the tree ---

    static Call read(Statement statement) {
        def expression = statement instanceof ExpressionStatement ? statement.expression : null
        if (!(expression instanceof MethodCallExpression) || !expression.implicitThis) { return null }
        def call = new Call(name: expression.methodAsString, node: expression)
        for (argument in expression.arguments.expressions) {
            if (argument instanceof ClosureExpression) { call.block = body(argument) }
            else if (argument instanceof MapExpression) { argument.mapEntryExpressions.each { call.named[it.keyExpression.text] = it.valueExpression } }
            else { call.args << argument }
        }
        call
    }

    static List<Statement> body(ClosureExpression closure) {
        closure.code instanceof BlockStatement ? closure.code.statements : [closure.code]
    }

    static List<Call> calls(Call around) { (around?.block ?: []).collect { read(it) }.findAll { it } }

    /** Visits every call below some code, also inside `script`, closures and strings. */
    static void everyCall(ASTNode below, Closure<?> visit) {
        below.visit(new CodeVisitorSupport() {
            void visitMethodCallExpression(MethodCallExpression call) {
                visit(call)
                super.visitMethodCallExpression(call)
            }
        })
    }

    static void everyProperty(ASTNode below, Closure<?> visit) {
        below.visit(new CodeVisitorSupport() {
            void visitPropertyExpression(PropertyExpression property) {
                visit(property)
                super.visitPropertyExpression(property)
            }
        })
    }

    // --- the grammar ---

    void check(List<Statement> statements) {
        def pipelines = statements.collect { read(it) }.findAll { it?.name == 'pipeline' }
        if (pipelines.size() != 1) {
            report(1, 'one-pipeline', "a declarative Jenkinsfile is one `pipeline` block, here are ${pipelines.size()}")
            return
        }
        def pipeline = pipelines[0]
        top = sections(pipeline, Grammar.PIPELINE, 'pipeline')
        ['agent', 'stages'].findAll { !top[it] }.each { report(pipeline.line, 'missing-section', "pipeline needs `${it}`") }
        common(top, false)
        parametersOf(top.parameters)
        calls(top.triggers).each { known(it, Grammar.TRIGGERS, 'unknown-trigger') }
        eachStage(top.stages, [])
        gateRules(pipeline)
    }

    Map<String, Call> sections(Call around, List<String> allowed, String what) {
        def result = [:]
        if (around.block == null) { report(around.line, 'expected-block', "${what} needs a block"); return result }
        for (statement in around.block) {
            def call = read(statement)
            if (call == null) { notACall(statement, what); continue }
            if (!(call.name in allowed)) { report(call.line, 'unknown-section', "`${call.name}` is no section of ${what}${near(call.name, allowed)}") }
            else if (result[call.name]) { report(call.line, 'duplicate-section', "a second `${call.name}` in ${what}") }
            else { result[call.name] = call }
        }
        result.each { name, call -> if (call.block != null && call.block.isEmpty()) { report(call.line, 'empty-section', "`${name}` is empty") } }
        result
    }

    void notACall(Statement statement, String what) {
        def chained = statement instanceof ExpressionStatement && statement.expression instanceof MethodCallExpression
        if (chained) { report(statement.lineNumber, 'one-per-line', "in ${what}: one block per line, or Groovy reads a chain of calls") }
        else { report(statement.lineNumber, 'not-declarative', "in ${what} only sections may stand; code belongs into `script`") }
    }

    void known(Call call, List<String> allowed, String rule) {
        if (!(call.name in allowed)) { report(call.line, rule, "`${call.name}` is not known here${near(call.name, allowed)}") }
    }

    static String near(String name, List<String> allowed) {
        def close = allowed.find { distance(it.toLowerCase(), name.toLowerCase()) <= 2 }
        close ? ": did you mean `${close}`?" : ''
    }

    static int distance(String a, String b) {
        def row = (0..b.size()).toList()
        a.eachWithIndex { letter, i ->
            def last = row
            row = [i + 1]
            b.eachWithIndex { other, j -> row << [last[j + 1] + 1, row[j] + 1, last[j] + (letter == other ? 0 : 1)].min() }
        }
        row[-1]
    }

    void common(Map<String, Call> sections, boolean inStage) {
        if (sections.agent) { agent(sections.agent) }
        if (sections.environment) { environment(sections.environment) }
        if (sections.options) { options(sections.options, inStage) }
        if (sections.post) { post(sections.post) }
    }

    void agent(Call call) {
        if (call.block == null) {
            def kind = call.args ? call.args[0].text : ''
            if (!(kind in ['any', 'none'])) { report(call.line, 'agent-type', "`agent ${kind}`: only `any` and `none` stand without a block") }
        } else {
            calls(call).each { known(it, Grammar.AGENTS, 'agent-type') }
        }
    }

    void environment(Call section) {
        def names = []
        for (statement in (section.block ?: [])) {
            def expression = statement instanceof ExpressionStatement ? statement.expression : null
            if (!(expression instanceof BinaryExpression) || expression.operation.text != '=') {
                report(statement.lineNumber, 'environment-value', 'only NAME = value may stand in `environment`')
                continue
            }
            def name = expression.leftExpression.text
            if (!(name ==~ /[a-zA-Z_]\w*/)) { report(statement.lineNumber, 'environment-name', "`${name}` is no name of a variable") }
            if (name in names) { report(statement.lineNumber, 'duplicate-variable', "a second `${name}`") }
            names << name
            if (!value(expression.rightExpression)) {
                report(statement.lineNumber, 'environment-value', "`${name}` must be a quoted string, a sum of such, or a function's call")
            }
        }
    }

    static boolean value(Expression expression) {
        if (expression instanceof BinaryExpression) {
            return expression.operation.text == '+' && value(expression.leftExpression) && value(expression.rightExpression)
        }
        expression instanceof GStringExpression || expression instanceof MethodCallExpression ||
            (expression instanceof ConstantExpression && expression.value instanceof String)
    }

    void options(Call section, boolean inStage) {
        def seen = []
        for (call in calls(section)) {
            if (!(call.name in Grammar.OPTIONS)) { known(call, Grammar.OPTIONS, 'unknown-option') }
            else if (inStage && !(call.name in Grammar.STAGE_OPTIONS)) { report(call.line, 'stage-option', "`${call.name}` is an option of the pipeline only") }
            if (call.name in seen) { report(call.line, 'duplicate-option', "a second `${call.name}`") }
            seen << call.name
        }
    }

    void post(Call section) {
        def seen = []
        for (call in calls(section)) {
            known(call, Grammar.POST, 'unknown-post')
            if (call.name in seen) { report(call.line, 'duplicate-post', "a second `${call.name}`") }
            seen << call.name
            steps(call)
        }
    }

    void parametersOf(Call section) {
        for (call in calls(section)) {
            known(call, Grammar.PARAMETERS, 'unknown-parameter')
            if (!call.text('name')) { report(call.line, 'parameter-name', "`${call.name}` needs a name") }
        }
    }

    void when(Call section) {
        def conditions = calls(section).findAll { !(it.name in Grammar.WHEN_ORDER) }
        if (conditions.isEmpty()) { report(section.line, 'when-empty', '`when` needs a condition') }
        conditions.each { condition(it) }
    }

    void condition(Call call) {
        known(call, Grammar.WHEN, 'unknown-when')
        if (!(call.name in Grammar.WHEN_NESTING)) { return }
        def inner = calls(call)
        if (call.name == 'not' ? inner.size() != 1 : inner.isEmpty()) {
            report(call.line, 'when-children', "`${call.name}` takes ${call.name == 'not' ? 'exactly one condition' : 'at least one condition'}")
        }
        inner.each { condition(it) }
    }

    void input(Call section) {
        if (section.block == null) { report(section.line, 'expected-block', '`input` is a block here, not a step'); return }
        def fields = calls(section)
        fields.each { known(it, Grammar.INPUT, 'input-field') }
        if (!fields.any { it.name == 'message' }) { report(section.line, 'input-message', '`input` needs a message') }
        parametersOf(fields.find { it.name == 'parameters' })
    }

    void steps(Call section) {
        for (statement in (section.block ?: [])) {
            def call = read(statement)
            if (call == null) { report(statement.lineNumber, 'not-declarative', 'only steps may stand here; code belongs into `script`'); continue }
            step(call)
        }
    }

    void step(Call call) {
        if (call.name in Grammar.BLOCKED_STEPS) { report(call.line, 'blocked-step', "`${call.name}` may not be used as a step"); return }
        known(call, Grammar.STEPS, 'unknown-step')
        def first = call.args ? call.args[0] : call.named.script
        if (call.name in ['sh', 'echo', 'error'] && first instanceof ConstantExpression && !(first.value instanceof String)) {
            report(call.line, 'step-argument', "`${call.name}` takes a string")
        }
        if (call.block != null && call.name != 'script') { steps(call) }
    }

    void eachStage(Call section, List<Stage> around) {
        if (section && section.block == null) { report(section.line, 'expected-block', "`${section.name}` needs a block") }
        def names = []
        for (statement in (section?.block ?: [])) {
            def call = read(statement)
            if (call == null) { notACall(statement, 'stages'); continue }
            if (call.name != 'stage' || call.text() == null) { report(call.line, 'expected-stage', "expected stage('name') { … }, not `${call.name}`"); continue }
            if (call.text() in names) { report(call.line, 'duplicate-stage', "a second stage '${call.text()}'") }
            names << call.text()
            stage(call, around)
        }
    }

    void stage(Call call, List<Stage> around) {
        def stage = new Stage(name: call.text(), call: call, around: around)
        stage.sections = sections(call, Grammar.STAGE, "stage '${stage.name}'")
        stages << stage
        def bodies = Grammar.BODIES.findAll { stage.sections[it] }
        if (bodies.size() != 1) { report(stage.line, 'stage-body', "stage '${stage.name}' needs exactly one of ${Grammar.BODIES.join(', ')}") }
        def fans = bodies.any { it in ['parallel', 'matrix'] }
        if (fans && (stage.sections.agent || stage.sections.tools)) { report(stage.line, 'parallel-agent', 'a stage with branches has no agent or tools of its own') }
        if (fans && around.any { it.sections.parallel || it.sections.matrix }) { report(stage.line, 'nested-parallel', 'no branches inside branches') }
        common(stage.sections, true)
        if (stage.sections.when) { when(stage.sections.when) }
        if (stage.sections.input) { input(stage.sections.input) }
        if (stage.sections.steps) { steps(stage.sections.steps) }
        ['stages', 'parallel'].each { eachStage(stage.sections[it], around + stage) }
        if (stage.sections.matrix) { eachStage(sections(stage.sections.matrix, Grammar.MATRIX, 'matrix').stages, around + stage) }
    }

    // --- the gate ---

    void gateRules(Call pipeline) {
        if (top.agent && !(top.agent.args && top.agent.args[0].text == 'none')) {
            report(top.agent.line, 'agent-none', 'an agent at the top is held while a person decides: `agent none`')
        }
        forbiddenOptions()
        stages.each { stage -> agents(stage); guards(stage); if (stage.sections.input) { gate(stage) } }
        order()
        shells(pipeline)
        everyCall(pipeline.node) { call -> forbiddenSteps(call) }
        parametersUsed(pipeline)
    }

    void forbiddenOptions() {
        def options = calls(top.options)
        def reasons = [disableRestartFromStage: ['no-restart-ban', 'every stage can be restarted; promote looks for the approval itself'],
                       disableResume: ['survives-restart', 'a waiting gate must survive a restart of the controller'],
                       timeout: ['pipeline-timeout', 'a limit on the whole pipeline ends waiting gates: give each stage its own'],
                       lock: ['lock-around-input', 'a lock on the whole pipeline is held while a person decides'],
                       disableConcurrentBuilds: ['milestone-not-queue', 'later builds would queue behind a waiting approval: use milestones']]
        options.each { if (reasons[it.name]) { report(it.line, reasons[it.name][0], reasons[it.name][1]) } }
        options.findAll { it.name == 'durabilityHint' && it.text() != 'MAX_SURVIVABILITY' }.each {
            report(it.line, 'survives-restart', 'only MAX_SURVIVABILITY keeps a waiting gate through a crash of the controller')
        }
        if (!options.any { it.name == 'buildDiscarder' }) { report(top.options?.line ?: 1, 'build-discarder', 'builds pile up without a buildDiscarder') }
    }

    void agents(Stage stage) {
        def own = stage.sections.agent
        def agent = own && !(own.args && own.args[0].text == 'none')
        def shells = false
        if (stage.sections.steps) { everyCall(stage.sections.steps.node) { shells |= it.methodAsString == 'sh' } }
        if (shells && !agent && !stage.around.any { it.sections.agent }) { report(stage.line, 'stage-agent', "stage '${stage.name}' runs commands on no agent") }
        if (agent && !stage.sections.input && !('timeout' in stage.options)) { report(stage.line, 'stage-timeout', "stage '${stage.name}' has no limit and may hang for ever") }
        [top, stage.sections].each { sections ->
            if (sections.environment && !sections.agent?.block && !(sections.agent?.args && sections.agent.args[0].text == 'any')) {
                everyCall(sections.environment.node) {
                    if (it.methodAsString == 'credentials') { bound(it) }
                }
            }
        }
    }

    void bound(MethodCallExpression call) {
        if (!found.any { it.rule == 'credentials-agent' && it.line == call.lineNumber }) {
            report(call.lineNumber, 'credentials-agent', 'a secret file is written to a workspace: bind it in a stage that has an agent')
        }
    }

    void guards(Stage stage) {
        def section = stage.sections.when
        def conditions = calls(section)
        def before = conditions.findAll { it.name in Grammar.WHEN_ORDER && it.args && it.args[0].text == 'true' }.collect { it.name }
        if (section && stage.sections.input && !('beforeInput' in before)) {
            report(section.line, 'when-before-input', 'without beforeInput, people are asked before the condition is looked at')
        } else if (section && stage.sections.agent && !before) {
            report(section.line, 'when-before-agent', 'without beforeAgent, an executor is taken before the condition is looked at')
        }
        def outside = conditions.any { it.name == 'not' && calls(it).any { inner -> inner.name == 'changeRequest' } }
        def testsOnly = conditions.any { it.name == 'changeRequest' }
        if (stage.top && !outside && !testsOnly) { report(stage.line, 'pull-request', "stage '${stage.name}' would run for a pull request: not { changeRequest() }") }
    }

    void gate(Stage stage) {
        if (stage.sections.input.block == null) { return }
        def fields = calls(stage.sections.input).collectEntries { [it.name, it] }
        def line = stage.sections.input.line
        if (fields.message && fields.message.text() == null) { report(line, 'static-message', 'the message is built before any stage ran: no variables') }
        if (!(fields.id?.text() ==~ /[A-Z][\w.-]*/)) { report(line, 'input-id', 'a gate needs an id of its own that begins with a capital letter') }
        if (!fields.submitter?.text()) { report(line, 'input-submitter', 'without a submitter everybody who may build may approve') }
        if (!fields.submitterParameter) { report(line, 'input-submitter-parameter', 'who decided must be known to the build') }
        if (!('timeout' in stage.options)) { report(line, 'input-timeout', 'a gate without a limit waits for ever') }
        if (stage.around.any { it.sections.agent && it.sections.agent.block }) { report(line, 'gate-holds-agent', 'a stage around the gate holds an agent while a person decides') }
        (stage.around + stage).findAll { 'lock' in it.options }.each { report(it.sections.options.line, 'lock-around-input', 'the lock is held while a person decides') }
        if (stage.options.any { it in ['withCredentials', 'retry'] }) { report(stage.sections.options.line, 'wrapped-input', 'nothing but a timeout stands around a gate') }
    }

    void order() {
        def gate = stages.findIndexOf { it.sections.input }
        def promotion = stages.findIndexOf { commands(it).any { text -> text =~ /pipeline promote .*--env production/ } }
        if (promotion >= 0 && (gate < 0 || gate > promotion)) { report(stages[promotion].line, 'production-without-gate', 'no gate stands before the promotion to production') }
        if (promotion >= 0 && !('lock' in stages[promotion].options)) { report(stages[promotion].line, 'promotion-lock', 'two builds may promote at once: lock this stage') }
        if (gate < 0) { return }
        def passed = { List<Stage> some -> some.any { stage -> def yes = false; if (stage.sections.steps) { everyCall(stage.sections.steps.node) { yes |= it.methodAsString == 'milestone' } }; yes } }
        if (!passed(stages.take(gate)) || !passed([stages[gate]])) { report(stages[gate].line, 'gate-milestone', 'a milestone before and one after the gate let older builds yield') }
        if (!commands(stages[gate]).any { it.contains('pipeline gate check') }) { report(stages[gate].line, 'gate-check', 'the gate stage ends with `gate check`: the ledger decides, not the button') }
    }

    static List<String> commands(Stage stage) {
        def texts = []
        if (stage.sections.steps) { everyCall(stage.sections.steps.node) { call -> if (call.methodAsString == 'sh') { texts << shellText(call) } } }
        texts.findAll { it }
    }

    static String shellText(MethodCallExpression call) {
        def found = null
        for (argument in call.arguments.expressions) {
            if (argument instanceof MapExpression) { argument.mapEntryExpressions.each { if (it.keyExpression.text == 'script') { found = it.valueExpression } } }
            else if (found == null) { found = argument }
        }
        found instanceof ConstantExpression ? String.valueOf(found.value) : found instanceof GStringExpression ? null : ''
    }

    void shells(Call pipeline) {
        everyCall(pipeline.node) { call ->
            if (call.methodAsString != 'sh') { return }
            def text = shellText(call)
            if (text == null) { report(call.lineNumber, 'interpolated-shell', 'Groovy would write secrets and parameters into the command: single quotes'); return }
            if (text =~ /python -m pipeline (?!report)/ && !text.contains('--run "$GATEHOUSE_RUN"')) { report(call.lineNumber, 'run-id', 'a stage gets its run by --run "$GATEHOUSE_RUN"') }
            if (text =~ /\$\{?APPROVER\b/) { report(call.lineNumber, 'claimed-approver', 'who decided is asked of Jenkins, never handed over in a command') }
            if (text =~ /--demo-identity/) { report(call.lineNumber, 'claimed-approver', 'a demo identity has no place in Jenkins') }
        }
        stages.each { stage -> variables(stage) }
    }

    /** Environment variables in capitals that a stage's commands use: each must be a parameter, bound, or given by Jenkins. */
    void variables(Stage stage) {
        def known = Grammar.GIVEN + namesIn(top.parameters) + assigned(top.environment) + ['GATEHOUSE_RUN']
        (stage.around + stage).each {
            known += assigned(it.sections.environment)
            def fields = calls(it.sections.input)
            known += namesIn(fields.find { field -> field.name == 'parameters' }) + fields.findAll { field -> field.name == 'submitterParameter' }.collect { field -> field.text() }
        }
        commands(stage).each { text ->
            (text =~ /\$\{?([A-Z][A-Z0-9_]+)/).each { match ->
                if (!(match[1] in known)) { report(stage.line, 'undeclared-variable', "stage '${stage.name}' uses ${match[1]}, which does not exist there") }
            }
        }
    }

    static List<String> namesIn(Call parameters) { calls(parameters).collect { it.text('name') } }

    static List<String> assigned(Call environment) {
        (environment?.block ?: []).collect { it instanceof ExpressionStatement && it.expression instanceof BinaryExpression ? it.expression.leftExpression.text : null }
    }

    void forbiddenSteps(MethodCallExpression call) {
        def name = call.methodAsString
        if (name == 'input' && call.implicitThis && !stages.any { it.sections.input?.node.is(call) }) {
            report(call.lineNumber, 'input-step', 'a gate is the directive of a stage: as a step it holds the agent')
        }
        if (name in ['stash', 'unstash'] && call.implicitThis) { report(call.lineNumber, 'no-stash', 'nothing but the run id goes from stage to stage') }
    }

    void parametersUsed(Call pipeline) {
        def declared = namesIn(top.parameters)
        everyProperty(pipeline.node) { property ->
            if (property.objectExpression.text == 'params' && !(property.propertyAsString in declared)) {
                report(property.lineNumber, 'undeclared-parameter', "params.${property.propertyAsString} is not declared")
            }
        }
    }
}

def everything = []
for (path in args) {
    def checker = new Checker(path)
    try {
        def unit = new CompilationUnit()
        unit.addSource(new File(path))
        unit.compile(Phases.CONVERSION)
        checker.check(unit.AST.modules[0].statementBlock.statements)
    } catch (MultipleCompilationErrorsException broken) {
        def first = broken.errorCollector.getSyntaxError(0)
        checker.report(first?.line ?: 1, 'syntax', first?.originalMessage ?: broken.message.readLines()[1])
    }
    everything.addAll(checker.found)
}
println JsonOutput.prettyPrint(JsonOutput.toJson(everything))
