package runner

/** An interruption: an input that was rejected or timed out, a newer build that passed a milestone, somebody's stop. */
class Interrupted extends RuntimeException {
    final String result

    Interrupted(String result, String message) {
        super(message)
        this.result = result
    }
}
