import org.codehaus.groovy.ast.ASTNode
import org.codehaus.groovy.ast.CodeVisitorSupport
import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*

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
}
