import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*

/** The rules of a gate, on top of the grammar; infra/jenkins/README.md gives their reasons. */
class GateRules extends GrammarRules {
    GateRules(String file) { super(file) }

    Call check(List<Statement> statements) {
        def pipeline = super.check(statements)
        if (pipeline) { gateRules(pipeline) }
        pipeline
    }

    private void gateRules(Call pipeline) {
        if (top.agent && !(top.agent.args && top.agent.args[0].text == 'none')) {
            report(top.agent.line, 'agent-none', 'an agent at the top is held while a person decides: `agent none`')
        }
        forbiddenOptions()
        stages.each { stage -> agents(stage); guards(stage); if (stage.sections.input) { gate(stage) } }
        order()
        shells(pipeline)
        Call.everyCall(pipeline.node) { call -> forbiddenSteps(call) }
        parametersUsed(pipeline)
    }

    void forbiddenOptions() {
        def options = Call.calls(top.options)
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
        def agent = takesAgent(stage)
        def shells = false
        if (stage.sections.steps) { Call.everyCall(stage.sections.steps.node) { shells |= it.methodAsString in Grammar.SHELLS } }
        if (shells && !agent && !stage.around.any { it.sections.agent }) { report(stage.line, 'stage-agent', "stage '${stage.name}' runs commands on no agent") }
        if (agent && !stage.sections.input && !('timeout' in stage.options)) { report(stage.line, 'stage-timeout', "stage '${stage.name}' has no limit and may hang for ever") }
        [top, stage.sections].each { sections ->
            if (sections.environment && !sections.agent?.block && !(sections.agent?.args && sections.agent.args[0].text == 'any')) {
                Call.everyCall(sections.environment.node) {
                    if (it.methodAsString == 'credentials') { bound(it) }
                }
            }
        }
    }

    static boolean takesAgent(Stage stage) {
        def own = stage.sections.agent
        own && !(own.args && own.args[0].text == 'none')
    }

    void bound(MethodCallExpression call) {
        if (!found.any { it.rule == 'credentials-agent' && it.line == call.lineNumber }) {
            report(call.lineNumber, 'credentials-agent', 'a secret file is written to a workspace: bind it in a stage that has an agent')
        }
    }

    void guards(Stage stage) {
        def section = stage.sections.when
        def conditions = Call.calls(section)
        def before = conditions.findAll { it.name in Grammar.WHEN_ORDER && it.args && it.args[0].text == 'true' }.collect { it.name }
        if (section && stage.sections.input && !('beforeInput' in before)) {
            report(section.line, 'when-before-input', 'without beforeInput, people are asked before the condition is looked at')
        } else if (section && stage.sections.agent && !before) {
            report(section.line, 'when-before-agent', 'without beforeAgent, an executor is taken before the condition is looked at')
        }
        def outside = conditions.any { it.name == 'not' && Call.calls(it).any { inner -> inner.name == 'changeRequest' } }
        def testsOnly = conditions.any { it.name == 'changeRequest' }
        if (stage.top && !outside && !testsOnly) { report(stage.line, 'pull-request', "stage '${stage.name}' would run for a pull request: not { changeRequest() }") }
    }

    void gate(Stage stage) {
        if (stage.sections.input.block == null) { return }
        def fields = Call.calls(stage.sections.input).collectEntries { [it.name, it] }
        def line = stage.sections.input.line
        if (fields.message && fields.message.text() == null) { report(line, 'static-message', 'the message is built before any stage ran: no variables') }
        if (!(fields.id?.text() ==~ /[A-Z][\w.-]*/)) { report(line, 'input-id', 'a gate needs an id of its own that begins with a capital letter') }
        if (!fields.submitter?.text()) { report(line, 'input-submitter', 'without a submitter everybody who may build may approve') }
        if (!fields.submitterParameter) { report(line, 'input-submitter-parameter', 'who decided must be known to the build') }
        if (!('timeout' in stage.options)) { report(line, 'input-timeout', 'a gate without a limit waits for ever') }
        if (stage.around.any { takesAgent(it) }) { report(line, 'gate-holds-agent', 'a stage around the gate holds an agent while a person decides') }
        (stage.around + stage).findAll { 'lock' in it.options }.each { report(it.sections.options.line, 'lock-around-input', 'the lock is held while a person decides') }
        if (stage.options.any { it in ['withCredentials', 'retry'] }) { report(stage.sections.options.line, 'wrapped-input', 'nothing but a timeout stands around a gate') }
    }

    void order() {
        def gate = stages.findIndexOf { it.sections.input }
        def promotion = stages.findIndexOf { commands(it).any { text -> text =~ /pipeline promote .*--env production/ } }
        if (promotion >= 0 && (gate < 0 || gate > promotion)) { report(stages[promotion].line, 'production-without-gate', 'no gate stands before the promotion to production') }
        if (promotion >= 0 && !('lock' in stages[promotion].options)) { report(stages[promotion].line, 'promotion-lock', 'two builds may promote at once: lock this stage') }
        if (gate < 0) { return }
        def passed = { List<Stage> some -> some.any { stage -> def yes = false; if (stage.sections.steps) { Call.everyCall(stage.sections.steps.node) { yes |= it.methodAsString == 'milestone' } }; yes } }
        if (!passed(stages.take(gate)) || !passed([stages[gate]])) { report(stages[gate].line, 'gate-milestone', 'a milestone before and one after the gate let older builds yield') }
        if (!commands(stages[gate]).any { it.contains('pipeline gate check') }) { report(stages[gate].line, 'gate-check', 'the gate stage ends with `gate check`: the ledger decides, not the button') }
    }

    static List<String> commands(Stage stage) {
        def texts = []
        if (stage.sections.steps) { Call.everyCall(stage.sections.steps.node) { call -> if (call.methodAsString in Grammar.SHELLS) { texts << shellText(call) } } }
        texts.findAll { it }
    }

    /** The text of a command; null where Groovy puts it together, empty where there is none. */
    static String shellText(MethodCallExpression call) {
        def found = null
        for (argument in call.arguments.expressions) {
            if (argument instanceof MapExpression) { argument.mapEntryExpressions.each { if (it.keyExpression.text == 'script') { found = it.valueExpression } } }
            else if (found == null) { found = argument }
        }
        def before = call.methodAsString == 'gatehouse' ? '.venv/bin/python -m pipeline ' : ''
        found instanceof ConstantExpression ? before + found.value : found == null ? '' : null
    }

    void shells(Call pipeline) {
        Call.everyCall(pipeline.node) { call ->
            if (!(call.methodAsString in Grammar.SHELLS)) { return }
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
            def fields = Call.calls(it.sections.input)
            known += namesIn(fields.find { field -> field.name == 'parameters' }) + fields.findAll { field -> field.name == 'submitterParameter' }.collect { field -> field.text() }
        }
        commands(stage).each { text ->
            (text =~ /\$\{?([A-Z][A-Z0-9_]+)/).each { match ->
                if (!(match[1] in known)) { report(stage.line, 'undeclared-variable', "stage '${stage.name}' uses ${match[1]}, which does not exist there") }
            }
        }
    }

    static List<String> namesIn(Call parameters) { Call.calls(parameters).collect { it.text('name') } }

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
        Call.everyProperty(pipeline.node) { property ->
            if (property.objectExpression.text == 'params' && !(property.propertyAsString in declared)) {
                report(property.lineNumber, 'undeclared-parameter', "params.${property.propertyAsString} is not declared")
            }
        }
    }
}
