// What can be held of containers, Kubernetes and the bill of materials without a container engine or a cluster.
import assert from 'node:assert/strict'
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor'
import { appendFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { ours } from '../servers.mjs'
import { folder, freePort, kit, missing, run, signalingServer } from './processes.mjs'

const turnConfig = path.join(path.dirname(signalingServer), 'turn-config')
const shipped = file => readFileSync(path.join(kit, file), 'utf8')
const secret = '0123456789abcdef0123456789abcdef0123456789abcdef'

/** A shipped configuration, with the secrets that it names where this machine has them. */
function fitted (file) {
  const at = folder()
  const secretAt = path.join(at, 'secret')
  writeFileSync(secretAt, secret)
  const text = shipped(file)
  assert.match(text, /"\/run\/secrets\/[\w./]+"/)
  writeFileSync(path.join(at, 'config.toml'), text.replace(/"\/run\/secrets\/[\w./]+"/g, JSON.stringify(secretAt)))
  return path.join(at, 'config.toml')
}

describe('the configurations in the packages', () => {
  for (const file of ['compose/signaling.toml', 'kubernetes/base/signaling.toml']) {
    it(`the server accepts ${file}`, async () => {
      const config = fitted(file)
      const env = {
        SIGNALING_ICE_STUN: 'stun:turn.example.com:3478',
        SIGNALING_ICE_TURN: 'turn:turn.example.com:3478?transport=udp',
        SIGNALING_ICE_SECRET_FILES: path.join(path.dirname(config), 'secret')
      }
      assert.match(await run(signalingServer, ['check-config', '--config', config], { env }), /\S/)
    })
  }

  for (const file of ['compose/turn.example.toml', 'kubernetes/overlays/example/turn.toml']) {
    it(`turn-config accepts ${file}`, { skip: !existsSync(turnConfig) && 'turn-config is not built' }, async () => {
      await run(turnConfig, ['check', fitted(file)])
    })
  }

  it('Caddy is configured in the containers as it is beside them', () => {
    const same = text => text.replace(/^(#.*\n)+\n/, '').replace(/^\t# .*\n/gm, '')
    const beside = same(shipped('proxy/Caddyfile')).replace('signal.example.com', '{$SIGNALING_DOMAIN}').replace('127.0.0.1:4444', 'signaling:4444')
    assert.equal(same(shipped('compose/Caddyfile')), beside)
  })

  it('secrets are files, and in no environment', () => {
    const [, services] = /^services:\n([\s\S]*?)^networks:/m.exec(shipped('compose.yaml'))
    for (const [, key, value] of services.matchAll(/^ {6}([A-Z_]{3,}): (.*)$/gm)) {
      assert.ok(!/SECRET|PASSWORD|TOKEN|KEY/.test(key) || value.startsWith('/run/secrets/'), key)
    }
  })
})

describe('what is handed out', { timeout: 60_000 }, () => {
  it('the image is built of all that cargo asks for, and of nothing else', async () => {
    const tree = path.join(kit, '..')
    const listed = (await run('git', ['-C', tree, 'ls-files'])).trim().split('\n')
    const rules = shipped('Dockerfile.dockerignore').trim().split('\n').filter(rule => rule.startsWith('!')).map(rule => rule.slice(1))
    assert.deepEqual(rules.filter(rule => /\*.*\//.test(rule)), [], 'builders do not look for these in folders that are left out')
    const included = listed.filter(file => rules.some(rule => matches(file, rule)))
    const context = folder()
    for (const file of included) {
      mkdirSync(path.dirname(path.join(context, file)), { recursive: true })
      cpSync(path.join(tree, file), path.join(context, file))
    }
    // What cargo says of itself lists targets whose files are not there; this it does only when they are.
    const [, host] = /^host: (.*)$/m.exec(await run('rustc', ['-vV']))
    await run('cargo', ['fetch', '--locked', '--offline', '--target', host], { cwd: context })
    assert.ok(!included.some(file => file.startsWith('e2e/')))
  })

  it('binaries have checksums that hold, and that show a byte that was changed', { skip: !existsSync(turnConfig) && 'turn-config is not built' }, async () => {
    const dist = path.join(folder(), 'dist')
    await run(path.join(kit, 'package'), ['--from', path.dirname(turnConfig)], { env: { ...process.env, DIST: dist } })
    const check = () => run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: dist })
    const checked = await check()
    for (const part of [/^signaling-server-[\d.]+-\w+-linux: OK$/m, /^turn-config-[\d.]+-\w+-linux: OK$/m, /\.cdx\.json: OK$/m]) assert.match(checked, part)
    appendFileSync(path.join(dist, readdirSync(dist).find(name => name.startsWith('turn-config'))), ' ')
    await assert.rejects(check(), error => /turn-config\S+: FAILED/.test(error.stdout))
  })

  /** Whether a rule lets a file in: by its whole path, or that of a folder it is in. `*` stays within a folder. */
  function matches (file, rule) {
    const parts = file.split('/')
    const pattern = new RegExp(`^${rule.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^/]*')}$`)
    return parts.some((_, index) => pattern.test(parts.slice(0, index + 1).join('/')))
  }
})

describe('the health check of the container', () => {
  const servers = []
  after(() => Promise.all(servers.map(server => server.kill())))
  const [, command] = /HEALTHCHECK[\s\S]*?CMD (\[.*\])/.exec(shipped('Dockerfile'))
  const healthy = port => {
    const [program, ...parameters] = JSON.parse(command).map(part => part.replace('9464', String(port)))
    return run(program, parameters).then(() => true, () => false)
  }

  it('holds while the server answers, and fails when nobody does', async () => {
    const server = await ours.start()
    servers.push(server)
    const port = (await server.line(/metrics on http:\/\/127.0.0.1:(\d+)/))[1]
    assert.equal(await healthy(port), true)
    await server.kill()
    assert.equal(await healthy(await freePort()), false)
  })
})

describe('Kubernetes', { timeout: 180_000 }, () => {
  const schemas = path.join(folder(), 'schemas')
  before(() => run('pip3', ['install', '--quiet', '--disable-pip-version-check', '--target', schemas, 'kubernetes-validate==1.37.0'], { timeout: 120_000 }))

  /** Holds manifests against the published schemas, in which no field may be that they do not name. */
  const valid = files => run('python3', ['-m', 'kubernetes_validate', '--strict', '--no-warn', ...files], { env: { ...process.env, PYTHONPATH: schemas } })

  it('every manifest is what the published schemas say, and a misspelt field is found', async () => {
    const files = ['signaling', 'network', 'coturn'].map(name => path.join(kit, `kubernetes/base/${name}.yaml`))
    assert.match(await valid(files), /passed for resource deployment\/signaling/)
    const misspelt = path.join(folder(), 'misspelt.yaml')
    writeFileSync(misspelt, readFileSync(files[0], 'utf8').replace('readinessProbe', 'readynessProbe'))
    await assert.rejects(valid([misspelt]), error => error.stdout.includes('readynessProbe'))
  })

  it('the service monitor is what the schema of the Prometheus operator says', () => {
    const monitors = parseAllDocuments(shipped('kubernetes/base/network.yaml')).map(document => document.toJS()).filter(({ kind }) => kind === 'ServiceMonitor')
    assert.equal(monitors.length, 1)
    new ServiceMonitor(monitors[0]).validate()
    const [{ spec }] = monitors
    assert.throws(() => new ServiceMonitor({ ...monitors[0], spec: { ...spec, endpoints: 'operator' } }).validate(), /endpoints must be array/)
  })

  it('the example is built from the base, every image named, with the domain and the job that the rules look for', { skip: missing('kubectl') }, async () => {
    const at = path.join(folder(), 'kubernetes')
    await run('cp', ['-r', path.join(kit, 'kubernetes'), at])
    const example = path.join(at, 'overlays/example')
    for (const file of ['token.key', 'turn.secret']) writeFileSync(path.join(example, file), secret)
    const built = await run('kubectl', ['kustomize', example])
    const kinds = [...built.matchAll(/^kind: (\w+)$/gm)].map(found => found[1])
    for (const kind of ['Deployment', 'DaemonSet', 'Ingress', 'NetworkPolicy', 'PersistentVolumeClaim', 'PodDisruptionBudget', 'ServiceMonitor']) {
      assert.ok(kinds.includes(kind), kind)
    }
    assert.doesNotMatch(built, /image: signaling-server$/m)
    assert.match(built, /targetLabel: job/)
    const whole = path.join(at, 'built.yaml')
    writeFileSync(whole, built)
    await valid([whole])
  })
})

describe('the bill of materials', () => {
  it('has what is linked in with its checksum, and nothing that only builds or tests', async () => {
    const { components, dependencies, metadata } = JSON.parse(await run(process.execPath, [path.join(kit, 'sbom.mjs')]))
    assert.equal(metadata.component.name, 'signaling-server')
    const named = new Map(components.map(component => [component.name, component]))
    for (const name of ['tokio', 'rustls', 'loro']) assert.match(named.get(name).hashes[0].content, /^[\da-f]{64}$/)
    for (const name of ['proptest', 'tempfile', 'serde_derive', 'rcgen']) assert.ok(!named.has(name), name)
    for (const { name, licenses } of components) assert.ok(licenses?.[0].expression, name)
    assert.equal(dependencies.length, components.length + 1)
  })
})
