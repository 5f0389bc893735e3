package runner

/** `currentBuild`: what a Jenkinsfile may ask of its build, and how it wants it shown. */
class CurrentBuild {
    private final Outside outside
    final int number
    final long startTimeInMillis
    String result
    private String displayName, description

    CurrentBuild(Outside outside, Map plan) {
        this.outside = outside
        number = plan.number ?: 1
        startTimeInMillis = plan.began ?: System.currentTimeMillis()
        displayName = "#${number}"
    }

    String getDisplayName() { displayName }
    String getDescription() { description }
    String getCurrentResult() { result ?: 'SUCCESS' }

    void setDisplayName(String text) { displayName = text; outside.shown(displayName, description) }
    void setDescription(String text) { description = text; outside.shown(displayName, description) }
}
