import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*

/** The grammar: what Jenkins itself would refuse. Keeps the stages that it read. */
class GrammarRules {
    final String file
    final List<Map> found = []
    final List<Stage> stages = []
    Map<String, Call> top = [:]

    GrammarRules(String file) { this.file = file }

    void report(int line, String rule, String message) { found << [file: file, line: line, rule: rule, message: message] }

    /** Reads the file's statements; answers its pipeline, or nothing where there is none to judge. */
    Call check(List<Statement> statements) {
        def pipelines = statements.collect { Call.read(it) }.findAll { it?.name == 'pipeline' }
        if (pipelines.size() != 1) {
            report(1, 'one-pipeline', "a declarative Jenkinsfile is one `pipeline` block, here are ${pipelines.size()}")
            return null
        }
        def pipeline = pipelines[0]
        top = sections(pipeline, Grammar.PIPELINE, 'pipeline')
        ['agent', 'stages'].findAll { !top[it] }.each { report(pipeline.line, 'missing-section', "pipeline needs `${it}`") }
        common(top, false)
        parametersOf(top.parameters)
        Call.calls(top.triggers).each { known(it, Grammar.TRIGGERS, 'unknown-trigger') }
        eachStage(top.stages, [])
        pipeline
    }

    Map<String, Call> sections(Call around, List<String> allowed, String what) {
        def result = [:]
        if (around.block == null) { report(around.line, 'expected-block', "${what} needs a block"); return result }
        for (statement in around.block) {
            def call = Call.read(statement)
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
            Call.calls(call).each { known(it, Grammar.AGENTS, 'agent-type') }
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
        for (call in Call.calls(section)) {
            if (!(call.name in Grammar.OPTIONS)) { known(call, Grammar.OPTIONS, 'unknown-option') }
            else if (inStage && !(call.name in Grammar.STAGE_OPTIONS)) { report(call.line, 'stage-option', "`${call.name}` is an option of the pipeline only") }
            if (call.name in seen) { report(call.line, 'duplicate-option', "a second `${call.name}`") }
            seen << call.name
        }
    }

    void post(Call section) {
        def seen = []
        for (call in Call.calls(section)) {
            known(call, Grammar.POST, 'unknown-post')
            if (call.name in seen) { report(call.line, 'duplicate-post', "a second `${call.name}`") }
            seen << call.name
            steps(call)
        }
    }

    void parametersOf(Call section) {
        for (call in Call.calls(section)) {
            known(call, Grammar.PARAMETERS, 'unknown-parameter')
            if (!call.text('name')) { report(call.line, 'parameter-name', "`${call.name}` needs a name") }
        }
    }

    void when(Call section) {
        def conditions = Call.calls(section).findAll { !(it.name in Grammar.WHEN_ORDER) }
        if (conditions.isEmpty()) { report(section.line, 'when-empty', '`when` needs a condition') }
        conditions.each { condition(it) }
    }

    void condition(Call call) {
        known(call, Grammar.WHEN, 'unknown-when')
        if (!(call.name in Grammar.WHEN_NESTING)) { return }
        def inner = Call.calls(call)
        if (call.name == 'not' ? inner.size() != 1 : inner.isEmpty()) {
            report(call.line, 'when-children', "`${call.name}` takes ${call.name == 'not' ? 'exactly one condition' : 'at least one condition'}")
        }
        inner.each { condition(it) }
    }

    void input(Call section) {
        if (section.block == null) { report(section.line, 'expected-block', '`input` is a block here, not a step'); return }
        def fields = Call.calls(section)
        fields.each { known(it, Grammar.INPUT, 'input-field') }
        if (!fields.any { it.name == 'message' }) { report(section.line, 'input-message', '`input` needs a message') }
        parametersOf(fields.find { it.name == 'parameters' })
    }

    void steps(Call section) {
        for (statement in (section.block ?: [])) {
            def call = Call.read(statement)
            if (call == null) { report(statement.lineNumber, 'not-declarative', 'only steps may stand here; code belongs into `script`'); continue }
            step(call)
        }
    }

    void step(Call call) {
        if (call.name in Grammar.BLOCKED_STEPS) { report(call.line, 'blocked-step', "`${call.name}` may not be used as a step"); return }
        known(call, Grammar.STEPS + Grammar.LIBRARY, 'unknown-step')
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
            def call = Call.read(statement)
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
}
