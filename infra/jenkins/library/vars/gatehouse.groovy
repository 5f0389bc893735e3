/**
 * Runs a command of Gatehouse on the agent at hand, in the environment that scripts/setup makes.
 * `words` are read by the shell: write variables as "$NAME" in single quotes, and Groovy never sees what is in them.
 */
def call(String words) {
    sh 'scripts/setup'
    sh ".venv/bin/python -m pipeline ${words}"
}
