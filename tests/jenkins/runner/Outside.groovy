package runner

/**
 * What a build meets from outside, as a plan tells it: answers to inputs, milestones that newer builds have passed.
 * Nobody stops such a build, and an agent is always free.
 */
class Outside {
    final Map plan

    Outside(Map plan) { this.plan = plan }

    /** Answers `{act, user, parameters}`; act is proceed, abort, timeout or superseded. */
    Map answer(Map asked) {
        def answer = plan.answers?.get(asked.id)
        if (answer == null) { throw new IllegalStateException("the plan has no answer to '${asked.id}': the build would wait") }
        answer
    }

    /** The number of a newer build that has passed this milestone or a later one. */
    Object newerPast(int ordinal, int number) { plan.milestones?.find { newer, passed -> (newer as int) > number && passed >= ordinal }?.key }
    void acquire(String kind, String name) { }
    void release(String kind, String name) { }
    void declared(Map parameters, List triggers, List options) { }
    void stage(String name, String status) { }
    void shown(String displayName, String description) { }
    void running(Long pid) { }

    /** Who stopped the build, asked once before each step. */
    Interrupted interruption() { null }
}
