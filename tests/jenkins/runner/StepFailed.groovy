package runner

/** A failure that ends a stage: a command that failed, an unknown step. */
class StepFailed extends RuntimeException {
    StepFailed(String message) { super(message) }
}
