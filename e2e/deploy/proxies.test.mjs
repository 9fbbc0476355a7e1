// The reverse proxies' configurations as they are shipped, in the real proxies, with TLS in front and our server behind.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { ours } from '../servers.mjs'
import { connect } from '../socket.mjs'
import { issue } from './certificates.mjs'
import { folder, freePort, get, kit, missing, start, until } from './processes.mjs'

const startMs = 20_000
const name = 'signal.example.com'
// Another address of this machine than the proxy's own: who is taken for the proxy is not taken for the client.
const clientAddress = '127.0.0.7'
const token = 'a-token-that-belongs-in-no-log'

const shipped = file => readFileSync(path.join(kit, 'proxy', file), 'utf8')

/** Replaces what differs between a test and a machine of its own; everything has to be there. */
function fitted (text, changes) {
  return changes.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `the configuration has no ${from}`)
    return text.replaceAll(from, to)
  }, text)
}

/** What every proxy has in common: where it listens, whom it serves, and how long it lets a connection be silent. */
const proxies = {
  caddy: {
    needs: ['caddy'],
    cutsSilence: false,
    start ({ at, port, upstream }) {
      const site = fitted(shipped('Caddyfile'), [
        [`${name} {`, `https://${name}:${port} {\n\ttls ${at('cert.pem')} ${at('key.pem')}`],
        ['127.0.0.1:4444', upstream]
      ])
      writeFileSync(at('Caddyfile'), `{\n\tadmin off\n\tauto_https disable_redirects\n}\n${site}`)
      return start('caddy', ['run', '--adapter', 'caddyfile', '--config', at('Caddyfile')], { env: { PATH: process.env.PATH, HOME: at('.') } })
    },
    log: ({ process }) => process.output()
  },
  nginx: {
    needs: ['nginx'],
    cutsSilence: true,
    start ({ at, port, upstream, silence }) {
      const site = fitted(shipped('nginx.conf'), [
        ['listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`], ['listen [::]:443 ssl;', ''],
        ['/etc/ssl/signaling', at('.')], ['127.0.0.1:4444', upstream], ['/var/log/nginx/signaling.log', at('access.log')],
        ['120s', silence]
      ])
      mkdirSync(at('temporary'))
      const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path ${at('temporary')}/${kind};`).join(' ')
      writeFileSync(at('nginx.conf'), `pid ${at('pid')}; daemon off; error_log stderr; events {} http { ${temporary}\n${site}\n}`)
      return start('nginx', ['-c', at('nginx.conf'), '-e', 'stderr'], { env: { PATH: `${process.env.PATH}:/usr/sbin` } })
    },
    log: ({ at }) => readFileSync(at('access.log'), 'utf8')
  },
  haproxy: {
    needs: ['haproxy'],
    cutsSilence: true,
    start ({ at, port, upstream, silence }) {
      const config = fitted(shipped('haproxy.cfg'), [
        ['bind :443', `bind 127.0.0.1:${port}`], ['/etc/haproxy/signaling.pem', at('both.pem')],
        ['127.0.0.1:4444', upstream], ['120s', silence], ['maxconn 20000', 'maxconn 100']
      ])
      writeFileSync(at('haproxy.cfg'), config)
      return start('haproxy', ['-W', '-f', at('haproxy.cfg')], { env: { PATH: `${process.env.PATH}:/usr/sbin` } })
    },
    log: ({ process }) => process.output()
  }
}

describe('behind a reverse proxy', { concurrency: true, timeout: 120_000 }, () => {
  for (const [kind, proxy] of Object.entries(proxies)) {
    describe(kind, { skip: missing('openssl', ...proxy.needs), concurrency: true }, () => promises(proxy))
  }
})

function promises (proxy) {
  let open

  before(async () => { open = await front({}) })
  after(() => open?.stop())

  it('a page connects by wss, and what is said arrives, large or small', async () => {
    const [ana, ben] = await Promise.all([open.connect(), open.connect()])
    for (const client of [ana, ben]) client.subscribe('plan')
    await Promise.all([ana.settled(), ben.settled()])
    const large = 'x'.repeat(200_000)
    ana.publish('plan', large)
    assert.equal((await ben.next()).data, large)
    assert.equal((await ana.next()).data, large)
    await Promise.all([ana.close(), ben.close()])
  })

  it('the server sees the address of the client, whatever the client claims', async () => {
    const honest = await open.connect()
    const liar = await open.connect({ headers: { 'x-forwarded-for': '203.0.113.9', forwarded: 'for=203.0.113.9' } })
    for (const [client, room] of [[honest, 'honest'], [liar, 'liar']]) {
      client.subscribe(room)
      await client.settled()
      const { connections } = JSON.parse(await get(`${open.operator}/rooms/${room}`))
      assert.deepEqual(connections.map(connection => connection.address), [clientAddress])
      await client.close()
    }
  })

  it('what is no WebSocket comes through, and a refusal says why', async () => {
    assert.deepEqual(await open.ask('/readyz'), { status: 200, body: 'ready\n' })
    assert.equal((await open.ask('/ice')).status, 401)
    await assert.rejects(open.connect({}, '?token=wrong'), /401/)
  })

  it('no token stands in the log of the proxy', async () => {
    await (await open.connect({}, `some/path?token=${token}&more=1`)).close()
    await until('the request in the log', startMs, () => proxy.log(open).includes('some/path'))
    assert.doesNotMatch(proxy.log(open), new RegExp(token))
  })

  it('a drain says 1012 to the client', async () => {
    const closing = await front({})
    const ana = await closing.connect()
    closing.server.stop()
    assert.equal(await ana.closed, 1012)
    await closing.stop()
  })

  const control = proxy.cutsSilence ? 'and without them it is cut' : 'and without them too'
  it(`pings keep a connection at rest through the proxy's time-out, ${control}`, async () => {
    const silence = '2s'
    const [pinged, left] = await Promise.all([front({ ping: '500ms', silence }), front({ ping: '50s', silence })])
    const [resting, forgotten] = await Promise.all([pinged.connect(), left.connect()])
    const pause = new Promise(resolve => setTimeout(resolve, 4_000, 'open'))
    const ends = await Promise.all([resting, forgotten].map(client => Promise.race([pause, client.closed.then(() => 'closed')])))
    assert.deepEqual(ends, ['open', proxy.cutsSilence ? 'closed' : 'open'])
    await Promise.all([pinged.stop(), left.stop()])
  })

  /** A server behind the proxy, and how to reach the two. */
  async function front ({ ping = '30s', silence = '120s' }) {
    const made = folder()
    const at = file => path.join(made, file)
    const ca = issue(made, name)
    const server = await ours.start({
      env: {
        SIGNALING_PROXY_TRUSTED: '127.0.0.1', SIGNALING_ACCESS_MODE: 'tokens', SIGNALING_ACCESS_TOKENS: token,
        SIGNALING_SIGNALING_PING_INTERVAL: ping, SIGNALING_SIGNALING_DEAD_AFTER: '100s', SIGNALING_DRAIN_READY_WAIT: '0s', SIGNALING_DRAIN_WINDOW: '0s'
      }
    })
    const operator = (await server.line(/metrics on (http:\/\/[^/]+)/))[1]
    const port = await freePort()
    const process = proxy.start({ at, port, upstream: `127.0.0.1:${server.port}`, silence })
    const tls = { ca, servername: name, localAddress: clientAddress, headers: { host: `${name}:${port}` } }
    const ask = async target => {
      const request = https.get(`https://127.0.0.1:${port}${target}`, { ...tls, agent: false, timeout: 5_000 })
      const [response] = await once(request, 'response')
      let body = ''
      for await (const piece of response) body += piece
      return { status: response.statusCode, body }
    }
    try {
      await until('the proxy', startMs, async () => (await ask('/readyz')).status === 200)
    } catch (error) {
      throw new Error(`${error.message}\n${process.output()}`, { cause: error.cause })
    }
    return {
      server, operator, process, at, ask,
      connect: ({ headers, ...more } = {}, target = `?token=${token}`) =>
        connect(`wss://127.0.0.1:${port}/${target}`, { ...tls, ...more, headers: { ...tls.headers, ...headers } }),
      async stop () {
        process.kill('SIGTERM')
        await Promise.all([process.exited, server.kill()])
      }
    }
  }
}
