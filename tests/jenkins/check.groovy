/*
 * Static checker of declarative Jenkinsfiles: `groovy -cp checker check.groovy FILE…` writes one JSON list of {file, line, rule, message}.
 *
 * It reads the syntax tree as it stands after conversion (nothing is run, no name is resolved), which is the tree that
 * Jenkins' own declarative parser reads. Two families of rules: the grammar of declarative pipelines, as its public
 * documentation gives it, and the rules of a gate, whose reasons stand in infra/jenkins/README.md. Written for Groovy
 * 2.4, the version that Jenkins embeds.
 */
import groovy.json.JsonOutput
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.MultipleCompilationErrorsException
import org.codehaus.groovy.control.Phases

def everything = []
for (path in args) {
    def checker = new GateRules(path)
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
