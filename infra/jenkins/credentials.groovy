// Puts the jobs' secrets into the jobs' folders at every start: a job sees those of its own folder and of no other.
// In init.groovy.d, because it must come after the folders. configuration-as-code writes their definitions anew at every
// start, before Jenkins has loaded them, so whatever was stored in a folder by hand is gone. Not yet run by a controller.
// The secret `gatehouse-settings` is the file gatehouse_settings, and so on. The API tokens of the two users that are
// programs come from files too: "11" and 32 hexadecimal digits. Files are read anew: to rotate a secret, restart.
import com.cloudbees.hudson.plugins.folder.AbstractFolder
import com.cloudbees.hudson.plugins.folder.properties.FolderCredentialsProvider
import com.cloudbees.plugins.credentials.CredentialsScope
import com.cloudbees.plugins.credentials.SecretBytes
import com.cloudbees.plugins.credentials.domains.Domain
import hudson.ExtensionList
import hudson.model.User
import hudson.util.Secret
import jenkins.model.Jenkins
import jenkins.security.ApiTokenProperty
import org.jenkinsci.plugins.plaincredentials.impl.FileCredentialsImpl
import org.jenkinsci.plugins.plaincredentials.impl.StringCredentialsImpl

def secrets = new File(System.getenv('GATEHOUSE_SECRETS') ?: '/run/secrets')

def described = [
    'gatehouse-settings'           : 'Settings of the installation, with the account that may train and write to staging.',
    'gatehouse-settings-approval'  : 'The same, with the account that may record decisions, and the signing key\'s place.',
    'gatehouse-settings-production': 'The same, with the account that may write to production.',
    'gatehouse-settings-monitoring': 'The same, with the accounts that may read, raise alarms and ask for a new training.',
    'gatehouse-webhook'            : 'Whoever calls the webhook must know this.',
]
def wanted = [
    mlops     : ['gatehouse-settings', 'gatehouse-settings-approval', 'gatehouse-settings-production', 'gatehouse-webhook'],
    approvals : ['gatehouse-settings-approval'],
    operations: ['gatehouse-settings-production', 'gatehouse-settings-monitoring', 'gatehouse-webhook'],
]
def tokens = ['gatehouse': 'gatehouse_token', 'gatehouse-retrain': 'gatehouse_retrain_token']

def make = { String id ->
    def file = new File(secrets, id.replace('-', '_'))
    if (!file.canRead()) { return null }
    if (id == 'gatehouse-webhook') {
        return new StringCredentialsImpl(CredentialsScope.GLOBAL, id, described[id], Secret.fromString(file.text.trim()))
    }
    new FileCredentialsImpl(CredentialsScope.GLOBAL, id, described[id], 'settings.toml', SecretBytes.fromRawBytes(file.bytes))
}

def missing = []
wanted.each { name, ids ->
    def folder = Jenkins.get().getItemByFullName(name, AbstractFolder)
    if (folder == null) {
        missing << "folder ${name}"
        return
    }
    def store = ExtensionList.lookupSingleton(FolderCredentialsProvider).getStore(folder)
    def stored = store.getCredentials(Domain.global()).collectEntries { [it.id, it] }
    ids.each { id ->
        def made = make(id)
        if (made == null) {
            missing << new File(secrets, id.replace('-', '_')).path
        } else if (stored[id]) {
            store.updateCredentials(Domain.global(), stored.remove(id), made)
        } else {
            store.addCredentials(Domain.global(), made)
        }
    }
    // What is left is no longer wanted, or its file is gone.
    stored.values().each { store.removeCredentials(Domain.global(), it) }
}

tokens.each { name, path ->
    def file = new File(secrets, path)
    if (!file.canRead()) {
        missing << file.path
        return
    }
    def property = User.getById(name, true).getProperty(ApiTokenProperty)
    property.tokenStore.tokenListSortedByName.findAll { it.name == 'infra/jenkins' }.each { property.tokenStore.revokeToken(it.uuid) }
    property.addFixedNewToken('infra/jenkins', file.text.trim())
}

if (missing) {
    // Jenkins logs this and starts: builds that need what is missing fail, the others run.
    throw new IllegalStateException("Gatehouse: not there: ${missing.unique().join(', ')}")
}
