/*
 * Runs a declarative Jenkinsfile without Jenkins.
 *
 *   groovy -cp HERE run.groovy JENKINSFILE PLAN.json…        writes what happened as JSON, one report for each plan
 *   groovy -cp HERE run.groovy --live JENKINSFILE PLAN.json  asks a controller over standard input and output (Wire.groovy)
 *
 * The commands of `sh` are really run. What a build meets from outside comes from the plan or from the controller: parameters,
 * answers to inputs, credentials, whether it is a pull request, the stage it was restarted from, milestones, locks, agents.
 * The order inside a stage is that of Jenkins (pipeline-model-definition, ModelInterpreter.groovy): when beforeOptions,
 * options, when beforeInput, input, when beforeAgent, agent, when, environment, steps, post. Each time an agent is taken,
 * the workspace is a fresh checkout, so that whatever a stage needs of another is missed.
 *
 * What Jenkins knows and this does not (parallel, matrix, tools, stash, docker, `node`) ends the run with an error that
 * says so. The grammar is check.groovy's business: run that first. Written for Groovy 2.4, the version that Jenkins embeds.
 */
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import runner.Build
import runner.Env
import runner.Outside
import runner.StepFailed
import runner.Wire

Map runPlan(File jenkinsfile, Map plan, Outside outside) {
    new File(plan.work).mkdirs()
    def build = new Build(plan, outside)
    def binding = new Binding(env: new Env(build), currentBuild: build.current)
    build.binding = binding
    binding.setVariable('pipeline') { Closure block -> build.run(block) }
    // A view, because the parameters are known only when their section was read.
    binding.setVariable('params', new AbstractMap<String, Object>() {
        Object get(Object name) { build.params[name] }
        Set<Map.Entry<String, Object>> entrySet() { build.params.entrySet() }
    })
    try {
        // Jenkins reads the syntax tree; here the condition would find the method that every object has.
        def text = jenkinsfile.text.replaceAll(/\bequals(\s+expected:)/, 'equalTo$1')
        new GroovyShell(this.class.classLoader, binding).parse(text, 'Jenkinsfile').run()
        build.report()
    } catch (UnsupportedOperationException | IllegalStateException | IllegalArgumentException | StepFailed | MissingMethodException problem) {
        [problem: problem.message]
    }
}

if (args[0] == '--live') {
    def plan = new JsonSlurper().parse(new File(args[2]))
    def wire = new Wire(plan, System.in, System.out)
    System.out = System.err // what a script prints is no word of ours
    wire.say([say: 'done', report: runPlan(new File(args[1]), plan, wire)])
    System.exit(0)
}
println JsonOutput.toJson(args.tail().collect { path ->
    def plan = new JsonSlurper().parse(new File(path))
    runPlan(new File(args[0]), plan, new Outside(plan))
})
