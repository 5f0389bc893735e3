/*
 * Runs jobs.groovy and credentials.groovy without Jenkins: `groovy controller_files.groovy JOBS CREDENTIALS SECRETS…`
 * writes as JSON what the first would make, and what the second leaves in the folders after each start.
 *
 * Both meet what they use of Jenkins and of its plugins, and nothing else: a method that the sources of job-dsl,
 * cloudbees-folder, credentials, plain-credentials and core do not have, or an argument of another type, is an error here.
 * Each SECRETS is a folder; its files are put in the place that GATEHOUSE_SECRETS names before that start.
 */
import groovy.json.JsonOutput
import org.codehaus.groovy.control.CompilerConfiguration

class Shapes {
    static final TEXT = String
    // Method: what it takes, a type or the shape of its block. From the contexts of job-dsl-core and, for those marked
    // dynamic, from the describable itself: job-dsl finds those by symbol or class name, and their setters by name.
    static final ALL = [
        folder                      : [displayName: TEXT, description: TEXT],
        multibranchPipelineJob      : [description: TEXT, displayName: TEXT, branchSources: 'branchSources', factory: 'factory',
                                       triggers: 'folderTriggers', orphanedItemStrategy: 'orphanedItemStrategy'],
        pipelineJob                 : [description: TEXT, displayName: TEXT, definition: 'definition', parameters: 'parameters',
                                       properties: 'properties'],
        parameters                  : [stringParam: [TEXT, TEXT, TEXT], choiceParam: [TEXT, List, TEXT]],
        properties                  : [pipelineTriggers: 'pipelineTriggers'],
        pipelineTriggers            : [triggers: 'triggers'], // dynamic: workflow-job
        triggers                    : [cron: 'cron'],
        cron                        : [spec: TEXT], // dynamic: core's TimerTrigger
        branchSources               : [git: 'gitSource'],
        gitSource                   : [id: TEXT, remote: TEXT, credentialsId: TEXT, includes: TEXT, excludes: TEXT],
        factory                     : [workflowBranchProjectFactory: 'workflowBranchProjectFactory'],
        workflowBranchProjectFactory: [scriptPath: TEXT], // dynamic: workflow-multibranch
        folderTriggers              : [periodicFolderTrigger: 'periodicFolderTrigger', cron: TEXT],
        periodicFolderTrigger       : [interval: TEXT], // dynamic: cloudbees-folder
        orphanedItemStrategy        : [discardOldItems: 'discardOldItems'],
        discardOldItems             : [daysToKeep: Integer, numToKeep: Integer],
        definition                  : [cpsScm: 'cpsScm'],
        cpsScm                      : [scm: 'scm', scriptPath: TEXT, lightweight: Boolean],
        scm                         : [git: 'git'],
        git                         : [remote: 'remote', branch: TEXT],
        remote                      : [url: TEXT, credentials: TEXT, name: TEXT, refspec: TEXT],
    ]
}

/** A block of the job language: takes what its shape knows, once each. */
class Context {
    private final String shape
    final Map seen = [:]

    Context(String shape) { this.shape = shape }

    def methodMissing(String name, args) {
        def wanted = Shapes.ALL[this.@shape][name]
        if (wanted == null) { throw new IllegalStateException("${this.@shape} has no method ${name}") }
        def given = (args as Object[]).collect { it instanceof GString ? it.toString() : it }
        if (wanted instanceof List) {
            check(name, given, wanted)
            this.@seen[name] = (this.@seen[name] ?: []) + [given]
            return null
        }
        if (this.@seen.containsKey(name)) { throw new IllegalStateException("${this.@shape}: ${name} twice") }
        check(name, given, [wanted instanceof String ? Closure : wanted])
        this.@seen[name] = wanted instanceof String ? Context.read(wanted, given[0]) : given[0]
        null
    }

    private static void check(String name, List given, List types) {
        def fits = given.size() == types.size() && [given, types].transpose().every { value, type -> type.isInstance(value) }
        if (!fits) { throw new IllegalStateException("${name} takes ${types*.simpleName}, not ${given}") }
    }

    def propertyMissing(String name) { throw new IllegalStateException("${this.@shape} has no property ${name}") }

    static Map read(String shape, Closure block) {
        def context = new Context(shape)
        block = block.clone()
        block.delegate = context
        block.resolveStrategy = Closure.DELEGATE_ONLY // job-dsl looks outside too, where a slip finds another block's method
        block()
        context.@seen
    }
}

abstract class Jobs extends Script {
    final List items = []

    private void add(String kind, String name, Closure block) {
        def parent = name.contains('/') ? name.substring(0, name.lastIndexOf('/')) : null
        if (parent && !items.any { it.kind == 'folder' && it.name == parent }) { throw new IllegalStateException("no folder ${parent}") }
        if (items.any { it.name == name }) { throw new IllegalStateException("${name} twice") }
        items << [kind: kind, name: name] + Context.read(kind, block)
    }

    void folder(String name, Closure block) { add('folder', name, block) }
    void multibranchPipelineJob(String name, Closure block) { add('multibranchPipelineJob', name, block) }
    void pipelineJob(String name, Closure block) { add('pipelineJob', name, block) }
}

def made(File script, Map environment) {
    def shell = new GroovyShell(this.class.classLoader, new Binding(environment), new CompilerConfiguration(scriptBaseClass: 'Jobs'))
    def jobs = shell.parse(script)
    jobs.run()
    jobs.items
}

// --- what credentials.groovy uses of Jenkins: the same packages, names and argument types ---

def loader = new GroovyClassLoader(this.class.classLoader)
[
    '''package com.cloudbees.hudson.plugins.folder
    class AbstractFolder { String fullName; def store }''',
    '''package com.cloudbees.plugins.credentials
    enum CredentialsScope { SYSTEM, GLOBAL, USER }''',
    '''package com.cloudbees.plugins.credentials
    class SecretBytes {
        private final byte[] bytes
        private SecretBytes(byte[] bytes) { this.bytes = bytes }
        static SecretBytes fromRawBytes(byte[] bytes) { new SecretBytes(bytes) }
        String shown() { new String(bytes, 'UTF-8') }
    }''',
    '''package com.cloudbees.plugins.credentials.domains
    class Domain { private static final Domain ONE = new Domain(); static Domain global() { ONE } }''',
    '''package hudson.util
    class Secret {
        private final String text
        private Secret(String text) { this.text = text }
        static Secret fromString(String text) { new Secret(text) }
        String shown() { text }
    }''',
    '''package org.jenkinsci.plugins.plaincredentials.impl
    import com.cloudbees.plugins.credentials.*
    class FileCredentialsImpl {
        final CredentialsScope scope; final String id; final String description; final String fileName; final SecretBytes secretBytes
        FileCredentialsImpl(CredentialsScope scope, String id, String description, String fileName, SecretBytes secretBytes) {
            this.scope = scope; this.id = id; this.description = description; this.fileName = fileName; this.secretBytes = secretBytes
        }
        Map shown() { [kind: 'file', scope: scope.name(), description: description, file: fileName, secret: secretBytes.shown()] }
    }''',
    '''package org.jenkinsci.plugins.plaincredentials.impl
    import com.cloudbees.plugins.credentials.*
    import hudson.util.Secret
    class StringCredentialsImpl {
        final CredentialsScope scope; final String id; final String description; final Secret secret
        StringCredentialsImpl(CredentialsScope scope, String id, String description, Secret secret) {
            this.scope = scope; this.id = id; this.description = description; this.secret = secret
        }
        Map shown() { [kind: 'string', scope: scope.name(), description: description, secret: secret.shown()] }
    }''',
    '''package com.cloudbees.hudson.plugins.folder.properties
    import com.cloudbees.hudson.plugins.folder.AbstractFolder
    import com.cloudbees.plugins.credentials.domains.Domain
    class Store {
        private final List kept = []
        final List<String> calls = []
        List getCredentials(Domain domain) { kept.asImmutable() }
        boolean addCredentials(Domain domain, Object made) {
            if (kept.any { it.id == made.id }) { return false }
            calls << 'add ' + made.id
            kept << made
        }
        boolean updateCredentials(Domain domain, Object current, Object replacement) {
            calls << 'update ' + current.id
            kept[kept.findIndexOf { it.is(current) }] = replacement
            true
        }
        boolean removeCredentials(Domain domain, Object current) {
            calls << 'remove ' + current.id
            kept.removeAll { it.is(current) }
        }
    }
    class FolderCredentialsProvider { Store getStore(AbstractFolder folder) { folder.store } }''',
    '''package hudson
    class ExtensionList {
        static Object lookupSingleton(Class type) {
            if (type.simpleName != 'FolderCredentialsProvider') { throw new IllegalStateException('no extension ' + type) }
            type.newInstance()
        }
    }''',
    '''package jenkins.model
    import com.cloudbees.hudson.plugins.folder.AbstractFolder
    class Jenkins {
        static final Jenkins ONE = new Jenkins()
        final Map folders = [:]
        static Jenkins get() { ONE }
        Object getItemByFullName(String name, Class type) {
            if (type != AbstractFolder) { throw new IllegalStateException('not a folder: ' + type) }
            folders[name]
        }
    }''',
    '''package jenkins.security
    class Token { String name; String uuid; String plain }
    class TokenStore {
        private final List<Token> tokens = []
        Collection<Token> getTokenListSortedByName() { new ArrayList(tokens).sort { it.name } }
        Object revokeToken(String uuid) { tokens.removeAll { it.uuid == uuid } }
    }
    class ApiTokenProperty {
        final TokenStore tokenStore = new TokenStore()
        String addFixedNewToken(String name, String plain) {
            if (!(plain ==~ /11[0-9a-f]{32}/)) { throw new IllegalArgumentException('The given version is not recognized') }
            def token = new Token(name: name, uuid: UUID.randomUUID().toString(), plain: plain)
            tokenStore.@tokens << token
            token.uuid
        }
    }''',
    '''package hudson.model
    import jenkins.security.ApiTokenProperty
    class User {
        static final Map<String, User> ALL = [:]
        final ApiTokenProperty property = new ApiTokenProperty()
        static User getById(String id, boolean create) { ALL.containsKey(id) || !create ? ALL[id] : (ALL[id] = new User()) }
        Object getProperty(Class type) { type == ApiTokenProperty ? this.@property : null }
    }''',
].each { loader.parseClass(it) }

def start(GroovyClassLoader loader, File script) {
    def problem = null
    try {
        new GroovyShell(loader, new Binding()).evaluate(script)
    } catch (IllegalStateException said) {
        problem = said.message
    }
    def jenkins = loader.loadClass('jenkins.model.Jenkins').get()
    def users = loader.loadClass('hudson.model.User').ALL
    [
        problem: problem,
        folders: jenkins.folders.collectEntries { name, folder -> [name, folder.store.@kept.collectEntries { [it.id, it.shown()] }] },
        calls  : jenkins.folders.collectEntries { name, folder -> def calls = folder.store.calls.toList(); folder.store.calls.clear(); [name, calls] },
        tokens : users.collectEntries { name, user -> [name, user.@property.tokenStore.@tokens*.plain] },
    ]
}

def (jobs, credentials) = args[0..1].collect { new File(it) }
def items = made(jobs, [:])
def jenkins = loader.loadClass('jenkins.model.Jenkins').get()
items.findAll { it.kind == 'folder' }.each {
    def store = loader.loadClass('com.cloudbees.hudson.plugins.folder.properties.Store').newInstance()
    jenkins.folders[it.name] = loader.loadClass('com.cloudbees.hudson.plugins.folder.AbstractFolder').newInstance(fullName: it.name, store: store)
}
def place = new File(System.getenv('GATEHOUSE_SECRETS'))
def starts = args.drop(2).collect { given ->
    place.listFiles().each { it.delete() }
    new File(given).listFiles().each { new File(place, it.name).bytes = it.bytes }
    start(loader, credentials)
}
println JsonOutput.toJson([items: items, elsewhere: made(jobs, [GATEHOUSE_REPOSITORY: 'ssh://git@elsewhere/x.git']), starts: starts])
