/** A stage with what lies around it, from the outermost inwards. */
class Stage {
    String name
    Call call
    Map<String, Call> sections = [:]
    List<Stage> around = []

    int getLine() { call.line }
    boolean getTop() { around.isEmpty() }
    Set<String> getOptions() { names('options') }
    Set<String> names(String section) { Call.calls(sections[section]).collect { it.name } as Set }
}
